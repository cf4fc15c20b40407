"""Both ways through the processor's kernels: with the C functions, and without."""

from collections.abc import Iterator

import pytest

from mezzotint.runtime import Kernel, kernels
from mezzotint.runtime.cpu import ONEDNN, OWN, native, processor, units


def prefer_own_products(patch: pytest.MonkeyPatch) -> None:
    """Arrange kernels as on a processor without VNNI."""
    patch.setattr(processor, "VNNI", False)
    ask_first(patch, OWN, ONEDNN)


def prefer_onednn(patch: pytest.MonkeyPatch) -> None:
    """Arrange kernels as on a processor with VNNI."""
    patch.setattr(processor, "VNNI", True)
    ask_first(patch, ONEDNN, OWN)


def ask_first(patch: pytest.MonkeyPatch, *preferred: Kernel) -> None:
    """Put registered kernels before all others, in this order."""
    first = {kernel.name: kernel for kernel in preferred}
    patch.setattr(kernels._KERNELS, "items", first | kernels._KERNELS.items)


@pytest.fixture(scope="module", params=["own", "onednn"])
def either_product(request: pytest.FixtureRequest) -> Iterator[str]:
    """8-bit codes are multiplied by the package's own C, or by oneDNN."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "own":
            prefer_own_products(patch)
            if units.unit() is None:
                pytest.skip("this processor has none of the vector units")
        else:
            patch.setattr(units, "unit", lambda: None)
        yield request.param


@pytest.fixture(params=["c", "torch"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(native, "library", lambda: None)
    return request.param
