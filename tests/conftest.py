"""Settings that hold for every test."""

import signal
import threading

from hypothesis import settings

# The same examples on every machine, and no clock: runners are shared and slow by turns.
settings.register_profile("mezzotint", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("mezzotint")

# A shell that runs us in the background has us ignore interruptions, and our children after us.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
