import pytest
import torch
from torch import nn

from mezzotint.calibration import input_sizes
from mezzotint.errors import PlanError
from mezzotint.models import Call, Graph, trace_graph
from mezzotint.plan import Choice
from mezzotint.runtime import ConstantTokens

CHOICES = dict.fromkeys(("twice", "conv", "idle"), Choice())


class _Denoiser(nn.Module):
    """One layer run twice, one on another shape, one never."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(4, 4)
        self.conv = nn.Conv2d(2, 3, 3)
        self.idle = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.twice(self.twice(x)).sum() + self.conv(x.view(5, 2, 3, 4)).sum()


def graph() -> Graph:
    return trace_graph(_Denoiser(), Call((torch.ones(5, 6, 4),), {}))


def test_elements_of_all_runs_are_counted():
    assert input_sizes(_Denoiser(), graph(), CHOICES) == {"twice": 240, "conv": 120, "idle": 0}


def test_constant_tokens_are_not_counted():
    choices = {"twice": Choice("int8/channel", structures=(ConstantTokens(1),))}
    assert input_sizes(_Denoiser(), graph(), choices) == {"twice": 200}


def test_a_structure_that_the_layer_cannot_have_is_refused():
    choices = {"conv": Choice("int8/channel", structures=(ConstantTokens(1),))}
    with pytest.raises(PlanError, match="a convolution has no constant tokens"):
        input_sizes(_Denoiser(), graph(), choices)
