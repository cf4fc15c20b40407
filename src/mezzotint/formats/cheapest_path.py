"""The cheapest path through a number of ascending places: a dynamic program."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mezzotint.formats.compiled import compiled_for


@dataclass(frozen=True, eq=False)
class PathCosts:
    """Costs of paths over `places`, float64 on the CPU.

    Attributes:
        first: of starting at each place, [places].
        step: of going from one to another, [to, from]; infinite unless it is higher.
        last: of ending at each place, [places].
    """

    first: Tensor
    step: Tensor
    last: Tensor


def cheapest_path(costs: PathCosts, count: int) -> list[int]:
    """The `count` places, ascending, of the path that costs least; of equal ones the lowest."""
    compiled = compiled_for(costs.step)
    ways = _ways if compiled is None else compiled.ways
    least, before = ways(costs.first, costs.step, count - 1)
    path = [int((least + costs.last).argmin())]
    for stage in reversed(before.tolist()):
        path.append(stage[path[-1]])
    return path[::-1]


def _ways(first: Tensor, step: Tensor, stages: int) -> tuple[Tensor, Tensor]:
    """The least cost of each place after so many steps, and the place before it at each stage.

    NumPy finds minima fastest.

    Returns:
        float64 [places], integer [stages, places].
    """
    least, steps, chosen = first.numpy(), step.numpy(), []
    for _ in range(stages):
        costs = least + steps
        before = costs.argmin(1)
        least = np.take_along_axis(costs, before[:, None], 1)[:, 0]
        chosen.append(before)
    return torch.from_numpy(least), torch.from_numpy(np.stack(chosen))
