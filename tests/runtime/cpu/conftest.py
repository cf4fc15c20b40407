"""Both ways through the processor's kernels: with the C functions, and without."""

from collections.abc import Iterator

import pytest

from mezzotint.runtime.cpu import avx2, native, processor


@pytest.fixture(scope="module", params=["avx2", "onednn"])
def either_product(request: pytest.FixtureRequest) -> Iterator[str]:
    """8-bit codes are multiplied by the package's own C, or by oneDNN."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "avx2":
            patch.setattr(processor, "VNNI", False)
            if not avx2.available(None, 1):
                pytest.skip("this processor has no AVX2")
        else:
            patch.setattr(native, "multiplies", lambda: False)
        yield request.param


@pytest.fixture(params=["c", "torch"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(native, "library", lambda: None)
    return request.param
