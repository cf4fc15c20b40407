"""Modules that compute the same whenever they are run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Dropout off, and statistics of batches left alone; modes are as before at the end."""
    training = {each: each.training for each in module.modules()}
    try:
        module.eval()
        yield
    finally:
        for each, mode in training.items():
            each.training = mode
