"""Dynamic programming over the layers that are in doubt.

Given a choice that solves the relaxation under one limit, layers are reconsidered in the order of
how cheaply they could differ from it, keeping every partial choice that could still beat the best
one known. A layer whose other options are all worse than that settles itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mezzotint.allocation.table import Selection

_BEAM = 1 << 13
"""Partial choices kept at once; scores that follow the weights closely need as many."""

Floats: TypeAlias = NDArray[np.float64]
Costs: TypeAlias = NDArray[Any]
"""Whole numbers: in float64 where their sums are exact in it, else Python integers."""


def fractions(weights: Costs, reach: Any) -> Floats:
    """Costs as float64 fractions of the reach; the integers may be too large for floats."""
    return np.asarray(weights / reach, dtype=np.float64)


@dataclass(frozen=True)
class Limited:
    """Costs of options, shape (L, K), and the most that may be chosen in total.

    They are ≥ 0, and 0 for some option of every layer.
    """

    weights: Costs
    most: int

    def total(self, choice: Selection) -> Any:
        """Total weight of a choice."""
        return self.weights[np.arange(len(choice)), choice].sum()

    def reach(self) -> Any:
        """The largest attainable total, or 1 if that is 0."""
        return self.weights.max(axis=1).sum() or 1


class Settled(NamedTuple):
    """Result of the search.

    Attributes:
        choice: The best choice found.
        lower: A lower bound on what any allowed choice adds to the loss of the split.
        proven: Whether `choice` is the optimum.
    """

    choice: Selection
    lower: float
    proven: bool


class _Partial(NamedTuple):
    """Partial choices: what each adds to the weight and the loss of the split."""

    weight: Costs
    loss: Floats


class _Step(NamedTuple):
    """Origin of the partial choices of one step in those of the step before."""

    layer: int
    parent: NDArray[np.intp]
    option: NDArray[np.intp]


@dataclass(frozen=True)
class Refinement:
    """Search for a better selection than the split: what each option adds to its loss and weight.

    Attributes:
        split: The choice that solves the relaxation.
        price: Its loss per whole reach of weight.
        reach: The largest attainable weight.
        room: Weight that the split leaves unused, ≥ 0.
        loss, weight: Added by each option, shape (L, K).
        penalty: `loss + price * weight / reach`, ≥ 0, shape (L, K).
        viable: Options in which an improvement on the split may differ from it, shape (L, K).
    """

    split: Selection
    price: float
    reach: Any
    room: Any
    loss: Floats
    weight: Costs
    penalty: Floats
    viable: NDArray[np.bool_]

    @classmethod
    def of(cls, split: Selection, price: float, loss: Floats, limited: Limited) -> Refinement:
        """Pose the question which layers should differ from the split."""
        rows = np.arange(len(split))
        reach = limited.reach()
        room = limited.most - limited.total(split)
        loss = loss - loss[rows, split][:, None]
        weight = limited.weights - limited.weights[rows, split][:, None]
        penalty = np.maximum(loss + price * fractions(weight, reach), 0.0)
        viable = (penalty < price * float(room / reach)) & (weight != 0)
        return cls(split, price, reach, room, loss, weight, penalty, viable)

    def settle(self, gap: float, total: float) -> Settled:
        """Search for the best choice.

        If more partial choices are worth keeping than the beam holds, the search stops at a `gap`
        relative to the loss, of which the split has `total`, and otherwise goes on with the best.
        """
        floor = -self.price * float(self.room / self.reach)
        best, best_at, dropped = 0.0, (-1, 0), np.inf
        partial = _Partial(np.zeros(1, dtype=self.weight.dtype), np.zeros(1))
        steps: list[_Step] = []
        for layer, more, less in zip(*self._order(), strict=True):
            room = self.room - partial.weight
            rate = np.where(room >= 0, self.price - more, self.price + less)
            # A choice that fits may be filled up; one that does not shrinks; at the cheapest rate.
            lower = partial.loss - rate * fractions(room, self.reach)
            noise = 1e-15 * float(np.abs(partial.loss).max())
            kept = np.flatnonzero(lower < best - noise)
            if not len(kept):
                break
            if len(kept) > self._beam():
                if best - floor <= gap * (total + best):
                    dropped = floor
                    break
                kept, worse = self._thin(kept, lower, room)
                dropped = min(dropped, float(lower[worse].min()))
            step, partial = self._extend(layer, kept, partial)
            steps.append(step)
            heaviest = int((partial.weight <= self.room).sum()) - 1
            if heaviest >= 0 and partial.loss[heaviest] < best:
                best, best_at = float(partial.loss[heaviest]), (len(steps) - 1, heaviest)
        choice = self._trace(steps, *best_at)
        return Settled(choice, max(floor, min(best, dropped)), proven=best <= dropped)

    def _beam(self) -> int:
        """Number of partial choices that can be worked on at a bearable pace."""
        if self.weight.dtype == np.dtype(object):
            return _BEAM // 16
        return _BEAM

    def _thin(
        self, kept: NDArray[np.intp], lower: Floats, room: Costs
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Divide partial choices into the promising ones, as many as the beam holds, and others.

        Among those with about the same lower bound, the nearest to the limit will soonest meet it.
        """
        distance = np.abs(fractions(room[kept], self.reach))
        order = (lower[kept] + 0.01 * self.price * distance).argsort(kind="stable")
        return np.sort(kept[order[: self._beam()]]), kept[order[self._beam() :]]

    def _order(self) -> tuple[NDArray[np.intp], Floats, Floats]:
        """Layers in doubt, and the least price of more and of less weight from each onwards."""
        layers = np.flatnonzero(self.viable.any(axis=1))
        viable, weight = self.viable[layers], self.weight[layers]
        amount = np.abs(fractions(weight, self.reach))
        rate = np.full(viable.shape, np.inf)
        np.divide(self.penalty[layers], amount, out=rate, where=viable & (amount > 0))
        order = rate.min(axis=1, initial=np.inf).argsort(kind="stable")
        more = np.where(weight > 0, rate, np.inf).min(axis=1, initial=np.inf)[order]
        less = np.where(weight < 0, rate, np.inf).min(axis=1, initial=np.inf)[order]
        more = np.minimum(np.minimum.accumulate(more[::-1])[::-1], self.price)
        return layers[order], more, np.minimum.accumulate(less[::-1])[::-1]

    def _extend(
        self, layer: int, kept: NDArray[np.intp], partial: _Partial
    ) -> tuple[_Step, _Partial]:
        """Combine partial choices with a layer's options, and keep those that nothing dominates.

        They come out in the order of weight, and each has less loss than all lighter ones.
        """
        options = [int(self.split[layer]), *map(int, np.flatnonzero(self.viable[layer]))]
        parent = np.tile(kept, len(options))
        option = np.repeat(options, len(kept))
        weight = partial.weight[parent] + self.weight[layer, option]
        loss = partial.loss[parent] + self.loss[layer, option]
        order = loss.argsort(kind="stable")
        order = order[weight[order].argsort(kind="stable")]
        ordered = loss[order]
        better = ordered[1:] < np.minimum.accumulate(ordered)[:-1]
        order = order[np.concatenate(([True], better))]
        return _Step(layer, parent[order], option[order]), _Partial(weight[order], loss[order])

    def _trace(self, steps: list[_Step], last: int, index: int) -> Selection:
        choice = self.split.copy()
        for step in reversed(steps[: last + 1]):
            choice[step.layer] = step.option[index]
            index = int(step.parent[index])
        return choice
