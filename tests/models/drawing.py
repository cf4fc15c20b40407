"""Small models whose graphs are drawn by hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

X = torch.ones(2, 5, 8)
IMAGE = torch.ones(2, 8, 6, 6)


class Layers(nn.Module):
    """Linear layers a, b, c, d of eight features; subclasses say what is done with them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(8, 8) for _ in range(4))


def layers(forward: object) -> nn.Module:
    """A model of four linear layers with that forward function."""
    return type("Model", (Layers,), {"forward": forward})()


class SkipConnection(nn.Module):
    """Two levels and a skip connection, whose concatenation two layers read."""

    def __init__(self, between: nn.Module | None = None) -> None:
        super().__init__()
        self.conv_in, self.down = nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(6, 12, 3, 2, 1)
        self.up = nn.Conv2d(12, 10, 3, padding=1)
        self.conv1, self.conv_shortcut = nn.Conv2d(16, 4, 3, padding=1), nn.Conv2d(16, 4, 1)
        self.norm, self.between = nn.GroupNorm(4, 16), between or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        skip = self.conv_in(x)
        hidden = F.interpolate(self.up(self.down(skip)), scale_factor=2)
        joined = torch.cat([hidden, skip], 1)
        shortcut = self.conv_shortcut(self.between(joined))
        return self.conv1(F.silu(self.norm(joined))) + shortcut
