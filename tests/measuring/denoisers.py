"""Small modules, each with a habit that replaying must respect."""

from __future__ import annotations

import torch
from diffusers.utils import BaseOutput
from torch import Tensor, nn


def linear() -> nn.Linear:
    return nn.Linear(4, 4)


class Chain(nn.Module):
    """Blocks of two layers, one block after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(linear(), nn.SiLU(), linear())
        self.second = nn.Sequential(linear(), nn.SiLU(), linear())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class Shared(nn.Module):
    """One module runs twice before another, and one before and after it."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.around, self.layer = linear(), linear(), linear()

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.twice(x), self.twice(2 * x)
        return self.around(self.layer(self.around(a - b)))


class Nested(nn.Module):
    """One module runs by itself and inside a block."""

    class Block(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.outer = inner, linear()

        def forward(self, x: Tensor) -> Tensor:
            return self.outer(self.inner(x))

    def __init__(self) -> None:
        super().__init__()
        self.alone = linear()
        self.block = self.Block(self.alone)
        self.last = linear()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.alone(x) * self.block(-x) + self.alone(3 * x))


class _Output(BaseOutput):
    sample: Tensor
    rest: object = None


class _Returning(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer, self.kind = linear(), kind

    def forward(self, x: Tensor) -> object:
        y = self.layer(x)
        return {
            "tuple": (y, 2),
            "list": [y, 2],
            "dict": {"y": y, "none": None},
            "nested": ([y], {"z": (y, "name")}),
            "output": _Output(sample=y, rest=3),
        }[self.kind]


class Returning(nn.Module):
    """A module returns something else than a tensor."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.part, self.last, self.kind = _Returning(kind), linear(), kind

    def forward(self, x: Tensor) -> Tensor:
        value = self.part(x)
        if self.kind == "nested":
            value = value[1]["z"]
        if self.kind == "output":
            return self.last(value.sample) * value.rest
        return self.last(value["y"] if self.kind == "dict" else value[0])


class Emptying(nn.Module):
    """Returned values are taken out of a module's list."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.last = _Returning("list"), linear()

    def forward(self, x: Tensor) -> Tensor:
        values = self.part(x)
        return self.last(values.pop(0))


class ChangedOutput(nn.Module):
    """A module's output is written to before, or after, the last layer has run."""

    def __init__(self, when: str) -> None:
        super().__init__()
        self.block = nn.Sequential(linear(), nn.Identity())
        self.last, self.when = linear(), when

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x)
        if self.when == "before":
            y.view(-1).mul_(2)
        z = self.last(y)
        if self.when == "after":
            y[1:].add_(1)
        return y + z


class _InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        x.add_(1)
        return y


class ChangedInput(nn.Module):
    """A module writes to its input, which is used again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.writer, self.last = linear(), _InPlace(), linear()

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(y + self.writer(y))


class _Secretive(nn.Module):
    class Value:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()

    def forward(self, x: Tensor) -> Value:
        return self.Value(self.layer(x))


class Secretive(nn.Module):
    """A module returns an object that nothing is known of."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.last = _Secretive(), linear()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.part(x).tensor)


class Branching(nn.Module):
    """Which modules run depends on the call."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = linear(), linear(), linear()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.left(x) if float(x.sum()) > 0 else self.right(x))


class Bare(nn.Module):
    """A layer's weight is read, but the layer itself never called."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.read, self.last = linear(), linear(), linear()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.matmul(self.first(x), self.read.weight))
