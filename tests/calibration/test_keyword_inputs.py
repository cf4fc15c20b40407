"""Layers that a model gives their input by keyword are watched and rounded as others are."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from mezzotint.calibration import input_ranges
from mezzotint.measuring import InputChange
from mezzotint.models import Call
from mezzotint.plan import Choice
from mezzotint.profiling import watch_runs
from mezzotint.runtime import Calibration

STATIC = Choice("int8/channel", "uint4/tensor")


class Positional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Keyword(Positional):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(input=x)


CALL = Call((torch.randn(4, 8, generator=torch.Generator().manual_seed(1)),), {})


def ranges(module: nn.Module):
    clips = {"layer": "full"}
    return input_ranges(module, {"layer": STATIC}, [CALL], momentum=None, clips=clips)


def test_their_ranges_are_found():
    assert ranges(Keyword()) == ranges(Positional())


@torch.no_grad()
def test_their_inputs_are_rounded():
    found = []
    for module in (Positional(), Keyword()):
        plain = CALL.run(copy.deepcopy(module))
        change = InputChange("layer", STATIC)
        with change.applied(module, Calibration(ranges(module))) as changed:
            found.append(CALL.run(changed))
        assert not torch.equal(found[-1], plain)
    assert torch.equal(*found)


def test_their_runs_are_seen():
    (seen, other) = (watch_runs(module, ["layer"], CALL) for module in (Keyword(), Positional()))
    assert seen.layers == other.layers
    assert torch.equal(*(next(iter(runs.samples.values())).x for runs in (seen, other)))
