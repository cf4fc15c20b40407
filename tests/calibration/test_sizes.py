import torch
from torch import nn

from mezzotint.calibration import input_sizes
from mezzotint.models import Call
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


def test_elements_of_all_runs_are_counted():
    call = Call((torch.ones(5, 6, 4),), {})
    found = input_sizes(_Denoiser(), CHOICES, call)
    assert found == {"twice": 240, "conv": 120, "idle": 0}


def test_constant_tokens_are_not_counted():
    call = Call((torch.ones(5, 6, 4),), {})
    choices = {"twice": Choice("int8/channel", structures=(ConstantTokens(1),))}
    assert input_sizes(_Denoiser(), choices, call) == {"twice": 200}
