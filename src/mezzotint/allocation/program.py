"""The integer program under any number of limits, solved by HiGHS' branch and cut.

HiGHS works in float64: it calls a row met when it is exceeded by no more than 1e-6, and a
solution optimal when its absolute gap is below 1e-6. Rows and objective are therefore scaled, and
every answer is checked in integers; one that exceeds a limit after all is cut off, and the program
solved again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from scipy.sparse import csr_array, hstack

from mezzotint.allocation._quiet import quiet
from mezzotint.allocation.table import OneSidedLimit, Selection, Table

_TOLERANCE = 1e-6
"""HiGHS' absolute tolerance of rows and of the optimality gap."""

_SCALE = 1e3
"""The largest coefficient of a scaled row."""

_OBJECTIVE = 1e5
"""The largest value of the scaled objective."""

_CUTS = 8
"""Answers beyond a limit that are cut off singly, before the limits are tightened instead."""

_INFEASIBLE = 2  # SciPy's status codes

_Floats: TypeAlias = NDArray[np.float64]
_Mask: TypeAlias = NDArray[np.bool_]


class Branched(NamedTuple):
    """Result of branch and cut.

    Attributes:
        choice: The best choice within all limits, or `None` if none was found.
        lower: Proven lower bound on the loss of any such choice; infinite if there is none.
    """

    choice: Selection | None
    lower: float


def branch(
    table: Table, sides: Sequence[OneSidedLimit], gap: float, seconds: float | None
) -> Branched:
    """Minimise the total loss within all sides, to a `gap` as a fraction of it."""
    deadline = None if seconds is None else time.perf_counter() + seconds
    kept = undominated(table.loss, sides)
    best: Selection | None = None
    lower = 0.0
    while True:
        program = _Program.of(table, sides, kept)
        found = program.solve(gap, deadline)
        lower = max(lower, found.lower)
        if found.choice is None:
            return Branched(best, lower)
        best, loss = found.choice, table.total_loss(found.choice)
        # An option that alone loses more than a known choice in total only coarsens the scale:
        # without it, what was below the tolerance may become visible.
        kept = kept & (table.loss <= loss)
        if loss - lower <= gap * loss or _scale(table.loss, kept) > 1e-2 * program.scale:
            return Branched(best, min(lower, loss))


def closest(
    table: Table, sides: Sequence[OneSidedLimit], seconds: float | None
) -> Selection | None:
    """A choice that violates the sides least, in sum, each relative to its attainable range."""
    # Without the loss, an option and the padding that repeats it would be equals.
    own = np.arange(table.loss.shape[1]) < np.array([[len(layer)] for layer in table.options])
    program = _Program.of(table, sides, own)
    columns, extra = len(program.layer), len(sides)
    ranges = [max(side.most() - side.least(), 1) for side in sides]
    price = np.array(
        [float(row.unit / reach) for row, reach in zip(program.rows, ranges, strict=True)]
    )
    # In whole units a limit between two of them would look as far from either.
    bounds = [
        row.bound + float((side.limit - side.bound) / row.unit)
        for row, side in zip(program.rows, sides, strict=True)
    ]
    assignment = hstack((program.assignment(), csr_array((len(table.loss), extra))))
    weights = hstack((program.weights(), csr_array(-np.eye(extra))))
    result = _milp(
        np.concatenate((np.zeros(columns), price / price.max() * _OBJECTIVE)),
        np.concatenate((np.ones(columns), np.zeros(extra))),
        [
            LinearConstraint(assignment, 1, 1),
            LinearConstraint(weights, -np.inf, bounds),
        ],
        _options(None if seconds is None else time.perf_counter() + seconds),
    )
    return None if result.x is None else program.choice(result.x[:columns])


def undominated(loss: _Floats, sides: Sequence[OneSidedLimit]) -> _Mask:
    """Marks of the options, shape (L, K), that no other of their layer beats in every respect.

    Of equals the first is kept.
    """
    aspects: list[NDArray[Any]] = [loss, *(side.weights for side in sides)]
    kept = np.ones(loss.shape, dtype=np.bool_)
    for one in range(loss.shape[1]):
        for other in range(loss.shape[1]):
            if other == one:
                continue
            beaten = np.ones(len(loss), dtype=np.bool_)
            equal = np.ones(len(loss), dtype=np.bool_)
            for aspect in aspects:
                beaten &= (aspect[:, other] <= aspect[:, one]).astype(np.bool_)
                equal &= (aspect[:, other] == aspect[:, one]).astype(np.bool_)
            kept[:, one] &= ~(beaten & (~equal | (other < one)))
    return kept


class _Row(NamedTuple):
    """A side over the columns, less each layer's least weight; `unit` integers make one."""

    weights: _Floats
    bound: float
    unit: Fraction


@dataclass(frozen=True)
class _Program:
    """One binary column per kept option: `layer` and `option` say which."""

    table: Table
    sides: Sequence[OneSidedLimit]
    layer: NDArray[np.intp]
    option: NDArray[np.intp]
    rows: tuple[_Row, ...]
    scale: float

    @classmethod
    def of(cls, table: Table, sides: Sequence[OneSidedLimit], kept: _Mask) -> _Program:
        layer, option = np.nonzero(kept)
        rows = tuple(_row(side, layer, option) for side in sides)
        return cls(table, sides, layer, option, rows, _scale(table.loss, kept))

    def solve(self, gap: float, deadline: float | None) -> Branched:
        """Minimise the loss, until an answer keeps to the sides exactly."""
        lower, slack = 0.0, 0.0
        cuts: list[_Floats] = []
        while True:
            result = self._relaxed(cuts, slack, gap, deadline)
            if slack == 0:
                lower = self._lower(result, lower)
            if result.x is not None:
                choice = self.choice(result.x)
                if all(side.allows(choice) for side in self.sides):
                    return Branched(choice, lower)
                cuts.append((choice[self.layer] == self.option).astype(np.float64))
                if len(cuts) == _CUTS:
                    slack = _TOLERANCE
                slack *= 2
            elif slack and result.status == _INFEASIBLE:
                slack = 0.0  # only answers within the tolerance are left: look at each
            else:
                return Branched(None, lower)

    def _relaxed(
        self, cuts: Sequence[_Floats], slack: float, gap: float, deadline: float | None
    ) -> OptimizeResult:
        """Minimise the loss within HiGHS' tolerance of the sides, each tightened by `slack`."""
        objective = self.table.loss[self.layer, self.option] / self.scale * _OBJECTIVE
        bound = np.array([row.bound for row in self.rows]) - slack
        constraints = [
            LinearConstraint(self.assignment(), 1, 1),
            LinearConstraint(self.weights(), -np.inf, bound),
        ]
        if cuts:
            constraints.append(LinearConstraint(np.array(cuts), -np.inf, len(self.table.loss) - 1))
        return _milp(objective, np.ones(len(objective)), constraints, _options(deadline, gap))

    def _lower(self, result: OptimizeResult, lower: float) -> float:
        if result.status == _INFEASIBLE:
            return np.inf
        if result.mip_dual_bound is None:
            return lower
        return max(lower, float(result.mip_dual_bound - _TOLERANCE) / _OBJECTIVE * self.scale)

    def assignment(self) -> csr_array:
        """One row per layer: the sum of its columns."""
        columns = len(self.layer)
        entries = (np.ones(columns), (self.layer, np.arange(columns)))
        return csr_array(entries, shape=(len(self.table.loss), columns))

    def weights(self) -> csr_array:
        """One row per side."""
        return csr_array(np.stack([row.weights for row in self.rows]))

    def choice(self, values: _Floats) -> Selection:
        """The choice that a vector of column values stands for."""
        chosen = np.zeros(self.table.loss.shape)
        chosen[self.layer, self.option] = values
        choice: Selection = chosen.argmax(axis=1)
        return choice


def _row(side: OneSidedLimit, layer: NDArray[np.intp], option: NDArray[np.intp]) -> _Row:
    least = side.weights.min(axis=1)
    weights = (side.weights - least[:, None])[layer, option]
    unit = max(int(weights.max()), 1)
    bound = min(side.bound - int(least.sum()), int(weights.sum()))
    scaled = np.asarray(weights * int(_SCALE) / unit, dtype=np.float64)
    return _Row(scaled, bound * int(_SCALE) / unit, Fraction(unit, int(_SCALE)))


def _scale(loss: _Floats, kept: _Mask) -> float:
    return float(np.where(kept, loss, 0.0).max(axis=1).sum()) or 1.0


def _options(deadline: float | None, gap: float = 0.0) -> dict[str, float]:
    options = {"mip_rel_gap": gap}
    if deadline is not None:
        options["time_limit"] = max(deadline - time.perf_counter(), 0.0)
    return options


def _milp(
    objective: _Floats,
    integer: _Floats,
    constraints: Sequence[LinearConstraint],
    options: dict[str, float],
) -> OptimizeResult:
    """Solve with binary columns where `integer` is 1 and any from 0 upwards where it is 0."""
    with quiet():
        return milp(
            objective,
            integrality=integer.astype(np.intp),
            bounds=Bounds(0, np.where(integer, 1.0, np.inf)),
            constraints=constraints,
            options=options,  # type: ignore[arg-type]
        )
