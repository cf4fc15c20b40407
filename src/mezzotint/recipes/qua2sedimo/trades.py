"""The verified end: exchanges of two layers at equal bytes, kept only where they prove to help."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from mezzotint.recipes.qua2sedimo.byte_window import ByteWindow
from mezzotint.recipes.search_space import Rows, SearchSpace, Value, single_changes

CHANCE = 0.05
"""Share of runs in which exchanges that change nothing may be kept."""

FORESEEN = 256
"""Pairs of changes, those whose single gains promise most, that are predicted together."""

Measured = Callable[[Rows], Sequence[float]]
"""A configuration → the metric on each held-out seed; smaller is better."""


@dataclass(frozen=True)
class Trade:
    """Two weights that change their formats at equal bytes.

    Attributes:
        weights: their positions.
        formats: what they take.
        gain: predicted change of the target; larger is better.
    """

    weights: tuple[int, int]
    formats: tuple[int, int]
    gain: float

    def made(self, configuration: Rows) -> Rows:
        """The configuration after it."""
        found = configuration.copy()
        found[list(self.weights)] = self.formats
        return found


@dataclass(frozen=True, eq=False)
class Screened:
    """A configuration after the exchanges that seem to help.

    Attributes:
        configuration: format indices [weights].
        tried: exchanges that were measured.
        passed: those by which the metric fell.
        level: mean of the metric before any of them.
    """

    configuration: Rows
    tried: int
    passed: tuple[Trade, ...]
    level: float


@dataclass(frozen=True, eq=False)
class Verified:
    """A configuration after the exchanges that proved to help.

    Attributes:
        configuration: format indices [weights].
        kept: exchanges that were made: all that had passed, or none.
        before: mean of the metric without them, on the seeds that decided.
        after: the same with those that were kept.
    """

    configuration: Rows
    kept: tuple[Trade, ...]
    before: float
    after: float


def proposed_trades(
    space: SearchSpace, value: Value, window: ByteWindow, incumbent: Rows, most: int
) -> tuple[Trade, ...]:
    """Exchanges of two weights that stay in the window, those of the largest predicted gain first.

    At the answer of a program few of them promise any gain: they are those that cost least if the
    prediction is right, and are worth trying since it may not be.
    """
    gains = single_changes(space, value, incumbent)
    grown = space.bytes - space.bytes[np.arange(len(space.keys)), incumbent][:, None]
    weights, formats = np.nonzero(np.arange(len(space.formats))[None] != incumbent[:, None])
    gain, growth = gains[weights, formats], grown[weights, formats]
    first, second = np.triu_indices(len(weights), k=1)
    stored = int(space.stored(incumbent)) + growth[first] + growth[second]
    # Two that do not offset one another are no exchange.
    opposed = growth[first] * growth[second] < 0
    swapped = (growth[first] == 0) & (growth[second] == 0)
    allowed = (weights[first] != weights[second]) & (opposed | swapped)
    allowed &= (stored >= window.least) & (stored <= window.most)
    first, second = first[allowed], second[allowed]
    likely = np.argsort(-(gain[first] + gain[second]), kind="stable")[:FORESEEN]
    trades = [
        Trade((int(weights[a]), int(weights[b])), (int(formats[a]), int(formats[b])), 0.0)
        for a, b in zip(first[likely], second[likely], strict=True)
    ]
    if not trades:
        return ()
    after = value(np.array([trade.made(incumbent) for trade in trades]))
    foreseen = after - value(incumbent[None])
    order = np.argsort(-foreseen, kind="stable")[:most]
    return tuple(
        Trade(trades[index].weights, trades[index].formats, float(foreseen[index]))
        for index in order
    )


def screened(
    trades: Sequence[Trade], incumbent: Rows, window: ByteWindow, space: SearchSpace,
    measured: Measured,
) -> Screened:  # fmt: skip
    """Take those exchanges by which the metric falls by more than its standard error.

    Each is measured on top of those that were taken, on seeds that no label has seen; weights that
    one of them has changed are left alone by the others. Of exchanges that change nothing, one in
    six passes by chance: what is taken has to be confirmed.

    Args:
        trades: in the order in which they are tried.
        incumbent: format indices [weights].
        window: of bytes, to be kept to by all of them together.
        space: tells the bytes.
        measured: the metric by seed; the seeds are the same for all configurations.
    """
    best = list(measured(incumbent))
    level, changed, passed, tried = statistics.fmean(best), set[int](), list[Trade](), 0
    for trade in trades:
        then = trade.made(incumbent)
        if changed & {*trade.weights} or not window.holds(int(space.stored(then))):
            continue
        tried += 1
        figures = list(measured(then))
        if _falls(best, figures, errors=1.0):
            incumbent, best = then, figures
            changed.update(trade.weights)
            passed.append(trade)
    return Screened(incumbent, tried, tuple(passed), level)


def confirmed(found: Screened, incumbent: Rows, measured: Measured) -> Verified:
    """Keep all exchanges that passed, or none: one comparison, on seeds that chose none of them.

    However many were tried, exchanges that change nothing are kept in one run of twenty at the
    most: the metric has to fall by more than Student's t allows for at that level.

    Args:
        found: after the exchanges that passed.
        incumbent: before them, format indices [weights].
        measured: the metric on other seeds than they were found by.
    """
    if not found.passed:
        return Verified(incumbent, (), found.level, found.level)
    before, after = list(measured(incumbent)), list(measured(found.configuration))
    level = statistics.fmean(before)
    if _falls(before, after, errors=float(stats.t.ppf(1 - CHANCE, len(before) - 1))):
        return Verified(found.configuration, found.passed, level, statistics.fmean(after))
    return Verified(incumbent, (), level, level)


def _falls(before: Sequence[float], after: Sequence[float], *, errors: float) -> bool:
    """True if the mean falls by more than so many standard errors; never where it is infinite."""
    falls = [was - now for was, now in zip(before, after, strict=True)]
    if not all(map(math.isfinite, falls)):  # it ruins the model
        return False
    return statistics.fmean(falls) > errors * statistics.stdev(falls) / math.sqrt(len(falls))
