"""These tests run in Triton's interpreter: `tests/runtime/test_gpu.py` starts them.

The interpreter must be asked for before anybody imports Triton, and torch's own compiler does; so
they have a process to themselves. By hand:
`TRITON_INTERPRET=1 python -m pytest tests/runtime/cuda`.
"""

import os

import pytest

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

collect_ignore_glob = [] if INTERPRETED else ["test_*.py"]


@pytest.fixture(autouse=True, scope="session")
def interpreter():
    assert INTERPRETED, "set TRITON_INTERPRET=1"
    from triton import language
    from triton.runtime import interpreter as triton_interpreter

    # It patches Triton's language anew whenever one function calls another, and each patch wraps
    # the last: most of the time goes there. Once a launch is enough.
    patch = triton_interpreter._patch_lang

    class Scope:
        def __init__(self, function):
            self.scopes = patch(function), patch(language.standard.sum.fn)

        def restore(self):
            for scope in reversed(self.scopes):
                scope.restore()

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(triton_interpreter, "_patch_lang", Scope)
        monkeypatch.setattr(
            triton_interpreter.InterpretedFunction,
            "__call__",
            lambda self, *args, **kwargs: self.rewrite()(*args, **kwargs),
        )
        yield
