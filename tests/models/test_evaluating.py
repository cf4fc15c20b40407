from __future__ import annotations

import pytest
import torch
from torch import nn

from mezzotint.models import evaluating


@pytest.fixture
def module() -> nn.Sequential:
    """Of both modes."""
    found = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    found[0].eval()
    return found


def test_everything_is_in_evaluation_and_as_before_afterwards(module: nn.Sequential):
    with evaluating(module):
        assert not any(each.training for each in module.modules())
    assert [each.training for each in module.modules()] == [True, False, True]


def test_modes_are_back_after_an_error(module: nn.Sequential):
    with pytest.raises(RuntimeError, match="none"), evaluating(module):
        raise RuntimeError("none")
    assert [each.training for each in module.modules()] == [True, False, True]


def test_dropout_does_nothing(module: nn.Sequential):
    x = torch.ones(4, 3)
    with evaluating(module):
        assert torch.equal(module(x), module(x))
