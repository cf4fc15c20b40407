"""Small denoisers whose inputs make trouble, and calls of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

WIDTH = 32


class Chain(nn.Module):
    """Four layers, of which `peaked` reads one channel that is far larger than all others.

    That channel hardly matters: its weights are as small as it is large.
    """

    def __init__(self, peak: float = 1000.0) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.peak = peak
        self.first = nn.Linear(WIDTH, WIDTH)
        self.peaked = nn.Linear(WIDTH, WIDTH)
        self.middle = nn.Linear(WIDTH, WIDTH)
        self.last = nn.Linear(WIDTH, WIDTH)
        with torch.no_grad():
            self.peaked.weight[:, 0] /= peak

    @override
    def forward(self, x: Tensor) -> Tensor:
        h = self.between(self.first(x).tanh())
        h = torch.cat((h[..., :1] * self.peak, h[..., 1:]), -1)
        return self.last(self.middle(self.peaked(h)).tanh())

    def between(self, h: Tensor) -> Tensor:
        """Pass on the first layer's output: another model may put something between."""
        return h


class Normed(Chain):
    """The same, with a norm that makes the channel large."""

    def __init__(self, peak: float = 1000.0) -> None:
        super().__init__(peak)
        self.norm = nn.LayerNorm(WIDTH)
        with torch.no_grad():
            self.norm.weight[0] *= peak

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.peaked(self.norm(self.first(x)))).tanh())


class _OneWay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise RuntimeError("there is no way back")


class OneWay(Chain):
    """A model whose backward pass fails."""

    @override
    def between(self, h: Tensor) -> Tensor:
        passed: Tensor = _OneWay.apply(h)
        return passed


class Cut(Chain):
    """A model in which no gradient reaches the first layer, though its output does."""

    @override
    def between(self, h: Tensor) -> Tensor:
        return h.detach()


def calls(count: int = 4, samples: int = 4) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Arguments of some calls, of several tokens each."""
    generator = torch.Generator().manual_seed(6)
    return [((torch.randn(samples, 8, WIDTH, generator=generator),), {}) for _ in range(count)]


class Images(nn.Module):
    """Convolutions and a Linear, two of which read a few channels far larger than all others.

    Those channels hardly matter: their weights are as small as they are large.
    """

    def __init__(self, peak: float = 300.0) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.first = nn.Conv2d(4, WIDTH, 3, padding=1)
        self.peaked_conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=2)
        self.peaked_linear = nn.Linear(WIDTH, WIDTH)
        self.last = nn.Conv2d(WIDTH, 4, 3, padding=1)
        self.peak = peak
        with torch.no_grad():
            self.peaked_conv.weight[:, 3] /= peak  # of each group: input channels 3 and 19
            self.peaked_linear.weight[:, 3] /= peak

    @override
    def forward(self, x: Tensor) -> Tensor:
        scale = x.new_ones(WIDTH)
        scale[[3, 19]] = self.peak
        h = self.peaked_conv(self.first(x).tanh() * scale.view(-1, 1, 1)).tanh().movedim(1, -1)
        scale[19] = 1.0
        return self.last(self.peaked_linear(h * scale).tanh().movedim(-1, 1))


def image_calls(count: int = 4, samples: int = 4) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Arguments of some calls of `Images`."""
    generator = torch.Generator().manual_seed(8)
    return [((torch.randn(samples, 4, 6, 6, generator=generator),), {}) for _ in range(count)]
