"""A plan's norms are compared with what the model does with their outputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mezzotint.calibration import calibrated, needs_calibration
from mezzotint.errors import PlanError
from mezzotint.models import Call
from mezzotint.plan import Choice, Plan
from mezzotint.runtime import NormSmoothing, Smoothing

IN_NORM = Choice("int4/channel", structures=(NormSmoothing("norm"),))
CALL = Call((torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)),), {})


class Block(nn.Module):
    """Two layers after a norm, and one after an activation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.other = nn.LayerNorm(4), nn.LayerNorm(4)
        self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return self.c(nn.functional.silu(self.other(self.a(y) + self.b(y))))


def test_layers_of_one_norm_have_the_exponents_of_stored_smoothing():
    made = Plan({"a": IN_NORM, "b": IN_NORM})
    stored = Plan(dict.fromkeys(("a", "b"), Choice("int4/channel", structures=(Smoothing(),))))
    found, expected = (calibrated(Block(), each, [CALL]).tensors for each in (made, stored))
    assert needs_calibration(made)
    for name in ("a", "b"):
        assert torch.equal(found[name]["exponent"], expected[name]["exponent"])


@pytest.mark.parametrize("other", [Choice(), Choice("int4/channel", structures=(Smoothing(),))])
def test_a_reader_that_the_norm_is_not_to_smooth_for_is_named(other: Choice):
    with pytest.raises(PlanError, match=r"layer a: .*norm is read by a, b, and b differs"):
        calibrated(Block(), Plan({"a": IN_NORM, "b": other}), [CALL])


def test_a_norm_before_an_activation_smooths_nothing():
    made = Plan({"c": Choice("int4/channel", structures=(NormSmoothing("other"),))})
    with pytest.raises(PlanError, match=r"layer c: .*other is no norm .*take smoothing"):
        calibrated(Block(), made, [CALL])


def test_a_layer_of_another_norm_is_named():
    made = Plan({"a": IN_NORM, "b": IN_NORM, "c": IN_NORM})
    with pytest.raises(PlanError, match=r"c differs from what the plan says"):
        calibrated(Block(), made, [CALL])
