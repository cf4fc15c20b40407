"""Both ways through the processor's kernels: with the C functions, and without."""

import pytest

from mezzotint.runtime.cpu import native


@pytest.fixture(params=["c", "torch"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(native, "library", lambda: None)
    return request.param
