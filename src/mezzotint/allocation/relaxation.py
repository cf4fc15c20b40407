"""Nearly the best choice, fast: for many problems that differ in their scores alone.

The linear relaxation lets a layer take shares of several options. Its optimum leaves as many
layers divided as there are limits, at the most; those take one option each, the best that fit.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from mezzotint.allocation._quiet import quiet
from mezzotint.allocation.values import Limit
from mezzotint.errors import UsageError

Floats = NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)

_WHOLE = 1e-6
"""Shares below this count as none."""

_MOST_TRIED = 1 << 16
"""Combinations of the divided layers' options that are tried."""


@dataclass(frozen=True, eq=False)
class Relaxation(Generic[Key]):
    """Costs and limits of a problem.

    Attributes:
        keys: layer → its options.
        first: index of each layer's first column, and at last the number of columns.
        weights: of each limit, as shares of what it allows, [limits, columns].
    """

    keys: Mapping[str, Sequence[Key]]
    first: NDArray[np.intp]
    weights: Floats

    @classmethod
    def of(
        cls,
        costs: Mapping[str, Mapping[Key, Mapping[str, int]]],
        limits: Sequence[Limit],
    ) -> Relaxation[Key]:
        """The relaxation of a problem.

        Args:
            costs: layer → option → resource → what it takes.
            limits: on the resources; no lower sides.

        Raises:
            UsageError: a limit has a lower side.
        """
        if any(limit.minimum is not None for limit in limits):
            raise UsageError("limits: have a lower side, which a relaxation does not keep to")
        keys = {name: tuple(each) for name, each in costs.items()}
        first = np.concatenate(([0], np.cumsum([len(each) for each in keys.values()])))
        rows = [
            np.array([cost[limit.resource] for each in costs.values() for cost in each.values()])
            / max(float(limit.maximum), 1.0)
            for limit in limits
        ]
        return cls(keys, first, np.array(rows, dtype=np.float64).reshape(len(rows), first[-1]))

    def solve(self, losses: Mapping[str, Mapping[Key, float]]) -> dict[str, Key] | None:
        """Options of nearly the least Σ loss within the limits; None where none were found."""
        loss = np.array([losses[name][key] for name, each in self.keys.items() for key in each])
        layers = len(self.keys)
        layer = np.repeat(np.arange(layers), np.diff(self.first))
        columns = np.arange(len(loss))
        whole = csr_array((np.ones(len(loss)), (layer, columns)), shape=(layers, len(loss)))
        constraints = [LinearConstraint(whole, 1, 1)]
        if len(self.weights):
            constraints.append(LinearConstraint(self.weights, -np.inf, 1))
        with quiet():
            found = milp(
                loss / (np.abs(loss).max() or 1.0),
                integrality=np.zeros(len(loss), dtype=np.intp),
                bounds=Bounds(0, 1),
                constraints=constraints,
            )
        if found.x is None:
            return None
        chosen = self._whole(found.x, loss)
        if chosen is None:
            return None
        return {
            name: each[column - start]
            for (name, each), column, start in zip(
                self.keys.items(), chosen, self.first, strict=False
            )
        }

    def _whole(self, shares: Floats, loss: Floats) -> NDArray[np.intp] | None:
        """The column of every layer: divided ones take the options of least loss that fit."""
        ranges = [range(start, end) for start, end in itertools.pairwise(map(int, self.first))]
        chosen = np.array([max(each, key=lambda column: shares[column]) for each in ranges])
        divided = [index for index, each in enumerate(ranges) if shares[chosen[index]] < 1 - _WHOLE]
        if not divided:
            return chosen
        settled = np.delete(chosen, divided)
        room = 1.0 - self.weights[:, settled].sum(axis=1)
        options = [np.arange(ranges[index].start, ranges[index].stop) for index in divided]
        if np.prod([len(each) for each in options]) > _MOST_TRIED:
            return None
        tried = np.stack(np.meshgrid(*options, indexing="ij")).reshape(len(divided), -1)
        fits = np.all(self.weights[:, tried].sum(axis=1) <= room[:, None] + 1e-12, axis=0)
        if not fits.any():
            return None
        totals = np.where(fits, loss[tried].sum(axis=0), np.inf)
        chosen[divided] = tried[:, int(totals.argmin())]
        return chosen
