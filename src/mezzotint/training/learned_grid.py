"""Grids of weights whose scales, zero points and levels are learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mezzotint.formats import AffineGrid, Grid, LookupGrid, MixedGrid
from mezzotint.rounding import fake_quantize

_BISECTIONS = 6
_SCALE, _ZERO_POINT = "scale", "zero_point"


class LearnedGrid(nn.Module):
    """The grid of one quantizer's weight.

    Scales are learned as their logarithm. Zero points are whole numbers within the codes, and
    scales and levels numbers of the stored dtype, at all times; gradients pass straight through.

    Attributes:
        start: the grid that training starts from.
        learned: `log_scale`, `zero_point` or `levels`, where the grid has them.
        codes: uint8 [out, k], where every weight keeps its code; else None.
    """

    codes: Tensor | None

    def __init__(self, grid: Grid, codes: Tensor | None = None) -> None:
        """Learn all parameters of `grid`; without zero points where `codes` are kept."""
        super().__init__()
        self.start = grid
        self.register_buffer("codes", codes, persistent=False)
        self.learned = nn.ParameterDict()
        for name, value in grid.parameters.items():
            if name == _SCALE:
                self.learned["log_scale"] = nn.Parameter(value.detach().float().log())
            elif name != _ZERO_POINT or codes is None:
                self.learned[name] = nn.Parameter(value.detach().float().clone())

    @property
    def grid(self) -> Grid:
        """The grid as it will be stored; differentiable in what is learned."""
        parameters = {n: p.exp() if n == "log_scale" else p for n, p in self.learned.items()}
        if "log_scale" in parameters:
            parameters[_SCALE] = parameters.pop("log_scale")
        return self.start.with_parameters(parameters)

    def forward(self, weight: Tensor) -> Tensor:
        """The values of `weight`, or of the codes that are kept: float32 of its shape."""
        if self.codes is None:
            return fake_quantize(weight, self.grid)
        return self.grid.values(self.codes).view(weight.shape)


def into_cells(weight: Tensor, grid: Grid, codes: Tensor) -> Tensor:
    """The weight, moved as little as makes `codes` those of its nearest values; float32.

    So training starts from what another rounding chose, such as error feedback, and can leave it
    as easily as it was chosen.
    """
    matrix = weight.detach().flatten(1).float()
    astray = grid.nearest(matrix) != codes
    if not bool(astray.any()):
        return weight.detach()
    value = grid.values(codes).detach()
    change, inside = matrix - value, torch.zeros_like(matrix)
    for step in range(1, _BISECTIONS + 1):
        further = inside + 0.5**step
        inside = torch.where(grid.nearest(value + further * change) == codes, further, inside)
    return torch.where(astray, value + inside * change, matrix).view(weight.shape)


@torch.no_grad()
def mean_step(grid: Grid) -> float:
    """The mean distance of neighbouring values of a grid, over all weights."""
    if isinstance(grid, MixedGrid):
        rows = sum(segment.shape[0] for segment in grid.segments)
        return sum(mean_step(each) * each.shape[0] for each in grid.segments) / rows
    if isinstance(grid, AffineGrid):
        return float(grid.scale.mean())
    assert isinstance(grid, LookupGrid), "there are no others"
    gaps = (grid.levels[:, -1] - grid.levels[:, 0]) / (grid.levels.shape[1] - 1)
    return float((gaps if grid.scale is None else gaps * grid.scale.view(-1)).mean())
