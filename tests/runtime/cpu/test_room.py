"""Room for large outputs is made by whoever writes them."""

from types import ModuleType

import pytest
import torch
from torch import nn

from mezzotint.plan import Choice, Plan
from mezzotint.runtime import pack_layer
from mezzotint.runtime.cpu import (
    FLOAT,
    ONEDNN,
    OWN,
    bound_layer,
    floating,
    int8_onednn,
    processor,
    units,
)
from mezzotint.runtime.kernels import Kernel
from tests.runtime.layers import run

KERNELS = {
    "own": (bound_layer, OWN, units.unit() is not None),
    "onednn": (int8_onednn, ONEDNN, processor.ONEDNN),
    "floating": (floating, FLOAT, True),
}


@pytest.mark.parametrize(("module", "kernel", "there"), KERNELS.values(), ids=KERNELS.keys())
def test_room_is_made_for_the_whole_output(
    module: ModuleType, kernel: Kernel, there: bool, monkeypatch: pytest.MonkeyPatch
):
    if not there:
        pytest.skip("not to be had on this processor")
    activation = "float" if kernel is FLOAT else "int8/token"
    layer = pack_layer("fc", nn.Linear(32, 48), Plan({"fc": Choice("int4/channel", activation)}))
    sizes: list[int] = []
    monkeypatch.setattr(module, "make_room", sizes.append)
    run(kernel, layer, torch.randn(5, 32))
    assert sizes == [5 * 48 * 4]
