"""Both ways through the processor's kernels: with the C functions, and without."""

from collections.abc import Iterator

import pytest

from mezzotint.runtime import kernels
from mezzotint.runtime.cpu import AVX2, ONEDNN, native, processor


def prefer_own_products(patch: pytest.MonkeyPatch) -> None:
    """Arrange kernels as on a processor without VNNI."""
    patch.setattr(processor, "VNNI", False)
    others = [kernel for kernel in kernels._KERNELS if kernel not in (AVX2, ONEDNN)]
    patch.setattr(kernels, "_KERNELS", [AVX2, ONEDNN, *others])


def prefer_onednn(patch: pytest.MonkeyPatch) -> None:
    """Arrange kernels as on a processor with VNNI."""
    patch.setattr(processor, "VNNI", True)
    others = [kernel for kernel in kernels._KERNELS if kernel not in (AVX2, ONEDNN)]
    patch.setattr(kernels, "_KERNELS", [ONEDNN, AVX2, *others])


@pytest.fixture(scope="module", params=["avx2", "onednn"])
def either_product(request: pytest.FixtureRequest) -> Iterator[str]:
    """8-bit codes are multiplied by the package's own C, or by oneDNN."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "avx2":
            prefer_own_products(patch)
            if not native.multiplies():
                pytest.skip("this processor has no AVX2")
        else:
            patch.setattr(native, "multiplies", lambda: False)
        yield request.param


@pytest.fixture(params=["c", "torch"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(native, "library", lambda: None)
    return request.param
