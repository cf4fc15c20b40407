"""Settings that hold for every test."""

import atexit
import os
import signal
import tempfile
import threading

import pytest
from hypothesis import settings

from mezzotint import _progress_lines
from tests import fuzzing, matrices

settings.load_profile(fuzzing.SOME)

# Tests of the choice find out which kernel is faster here; all others ask for our own.
os.environ.setdefault("MEZZOTINT_INT8", "cpu-int8")

# A sync takes a disk milliseconds, and the tests ask for tens of thousands. That all is synced
# which must be, and in what order, is seen from the calls (test_durable.py, robustness).
os.fsync = os.fstat  # type: ignore[assignment]

# What takes long says so, and on a busy machine anything may; test_progress.py has it as it is.
_progress_lines._FIRST_LINE = 1e9

# Measured times are kept; no run of the tests may find, or leave, any in the user's folder.
_CACHE = tempfile.TemporaryDirectory(prefix="mezzotint-tests-")
os.environ["MEZZOTINT_CACHE"] = _CACHE.name
atexit.register(_CACHE.cleanup)
os.environ["MEZZOTINT_OPENVINO_CACHE"] = "0"

# A shell that runs us in the background has us ignore interruptions, and our children after us.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all",
        action="store_true",
        dest="everything",
        help="run every combination of parameters, not a diagonal, and ten times the examples",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Before the tests are imported: their own numbers of examples follow the profile.
    if config.option.everything:
        settings.load_profile(fuzzing.MANY)


# After -k and -m, so that what they leave of a matrix has a diagonal of its own.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.everything:
        return
    repeated = matrices.beyond_the_diagonals(items)
    repeated |= {item for item in items if item.get_closest_marker("thorough")}
    if repeated:
        config.hook.pytest_deselected(items=[item for item in items if item in repeated])
        items[:] = [item for item in items if item not in repeated]
