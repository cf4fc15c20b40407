"""Room for large outputs is made by whoever writes them."""

from types import ModuleType

import pytest
import torch
from torch import nn

from mezzotint.plan import Choice, Plan
from mezzotint.runtime import pack_layer
from mezzotint.runtime.cpu import avx2, floating, onednn, processor

NEEDS = {avx2: avx2.available(None, 1), onednn: processor.ONEDNN, floating: True}


@pytest.mark.parametrize("module", NEEDS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_room_is_made_for_the_whole_output(module: ModuleType, monkeypatch: pytest.MonkeyPatch):
    if not NEEDS[module]:
        pytest.skip("not to be had on this processor")
    activation = "float" if module is floating else "int8/token"
    layer = pack_layer("fc", nn.Linear(32, 48), Plan({"fc": Choice("int4/channel", activation)}))
    sizes: list[int] = []
    monkeypatch.setattr(module, "make_room", sizes.append)
    if module is onednn:
        onednn.run(layer, torch.randn(5, 32))
    else:
        layer(torch.randn(5, 32))
    assert sizes == [5 * 48 * 4]
