"""Settings that hold for every test."""

from hypothesis import settings

# The same examples on every machine, and no clock: runners are shared and slow by turns.
settings.register_profile("mezzotint", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("mezzotint")
