"""Numbers of examples that hypothesis tries: some in every run, and many when all is run."""

from hypothesis import settings

SOME, MANY = "some", "many"

#: Examples of a test that asks for no number of its own.
USUAL = 50

# The same examples on every machine, and no clock: runners are shared and slow by turns.
settings.register_profile(SOME, deadline=None, derandomize=True, max_examples=USUAL)
settings.register_profile(MANY, settings.get_profile(SOME), max_examples=10 * USUAL)


def examples(count: int) -> settings:
    """Decorator for a slow property: so many examples where others try the usual number."""
    return settings(max_examples=count * settings.default.max_examples // USUAL)
