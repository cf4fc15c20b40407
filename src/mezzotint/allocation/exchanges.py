"""Exchanges between layers that lower a noise known only by projections of it.

A plan has an error e, of which N random projections are known, and so is the change of each
projection by every move: another option for one layer. The noise of a plan after some moves is
then, to first order in them, the mean of (e + Σ moves)² over the projections. Moves are found on
the first half of the projections, and made only if the second agrees and the gain of both is beyond
doubt: what fits the few projections at hand, and not the error behind them, is no gain. Halves are
consecutive, as those of a low-discrepancy sequence are spread over all of its range; every other
point of one is all of its lower end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mezzotint.errors import UsageError

FEWEST_PROJECTIONS = 4
"""Two on which exchanges are found, and two on which they are judged."""

MOST_MOVES = 2048
"""Moves of which all pairs are looked at: those that promise most, of each direction a half."""

MOST_TRIED = 512
"""Moves and pairs, those that gain most on one half, that are looked at on all projections."""

SURE = 2.0
"""Standard errors that a gain has to exceed."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moves:
    """Every move that an option of a layer stands for.

    Attributes:
        layer: index of the layer, int [M].
        change: of every projection, relative to the root of its signal's energy, [M, N].
        cost: what the move takes more of each resource, [M, R]; negative where it sets some free.
    """

    layer: NDArray[np.intp]
    change: Floats
    cost: Floats


@dataclass(frozen=True, eq=False)
class Exchanges:
    """Moves that are worth making together.

    Attributes:
        moves: their indices, at most one for each layer.
        predicted: relative change of the noise on the second half, ≤ 0.
    """

    moves: tuple[int, ...]
    predicted: float


def find_exchanges(error: Floats, moves: Moves, room: Floats) -> Exchanges:
    """Moves, one or two at a time, that lower the mean of (error + Σ change)².

    Args:
        error: N projections of the plan's error, relative to the root of the signal's energy, in
            the order of their probes.
        moves: the options of all layers but those that the plan has.
        room: what is left of each resource, [R].

    Raises:
        UsageError: there are fewer than four projections.
    """
    if len(error) < FEWEST_PROJECTIONS:
        raise UsageError(
            f"exchanges: {len(error)} projections tell too little; give {FEWEST_PROJECTIONS} or "
            "more"
        )
    start, kept = error, dict[int, int]()
    room = room.astype(np.float64)
    # A layer that has moved stays: what is left to find is found among the others.
    open_moves = np.arange(len(moves.layer))
    while len(open_moves):
        found = _surest(error, moves, _promising(error, moves, open_moves, room))
        if found is None:
            break
        error = error + moves.change[found].sum(axis=0)
        room = room - moves.cost[found].sum(axis=0)
        kept |= {int(moves.layer[move]): int(move) for move in found}
        open_moves = open_moves[~np.isin(moves.layer[open_moves], list(kept))]
    before, after = (float(np.square(_second(each)).mean()) for each in (start, error))
    return Exchanges(tuple(kept.values()), after / before - 1 if before else 0.0)


def _second(projections: Floats) -> Floats:
    """The half that judges."""
    return projections[len(projections) // 2 :]


def _promising(
    error: Floats, moves: Moves, open_moves: NDArray[np.intp], room: Floats
) -> list[list[int]]:
    """Single moves and pairs that fit into the room and gain most on the first half."""
    first = slice(len(error) // 2)
    error, change = error[first], moves.change[open_moves, first]
    gain = 2 * change @ error / len(error) + np.square(change).mean(axis=1)
    order = gain.argsort(kind="stable")
    frees = np.asarray((moves.cost[open_moves] < 0).any(axis=1))[order]
    picked = np.concatenate((order[frees][: MOST_MOVES // 2], order[~frees][: MOST_MOVES // 2]))
    chosen, gain, change = open_moves[picked], gain[picked], change[picked]
    cost, layer = moves.cost[chosen], moves.layer[chosen]
    together = gain[:, None] + gain + 2 * (change @ change.T) / len(error)
    np.fill_diagonal(together, gain)  # a move on its own
    same = (layer[:, None] == layer) & ~np.eye(len(layer), dtype=bool)
    together[same | np.tri(len(layer), k=-1, dtype=bool)] = np.inf
    for resource, left in enumerate(room):
        total = cost[:, None, resource] + cost[:, resource]
        np.fill_diagonal(total, cost[:, resource])
        together[total > left] = np.inf
    best = together.ravel().argsort(kind="stable")[:MOST_TRIED]
    pairs = (divmod(int(index), len(chosen)) for index in best if together.flat[index] < 0)
    return [[int(chosen[index]) for index in dict.fromkeys(pair)] for pair in pairs]


def _surest(error: Floats, moves: Moves, tried: Sequence[Sequence[int]]) -> list[int] | None:
    """The moves among some that gain most over all, and beyond doubt; None where none do."""
    best: tuple[float, list[int]] | None = None
    for each in tried:
        change = moves.change[list(each)].sum(axis=0)
        gains = change * (change + 2 * error)
        mean, doubt = float(gains.mean()), float(gains.std(ddof=1)) / len(gains) ** 0.5
        sure = mean + SURE * doubt < 0 and float(_second(gains).mean()) < 0
        if sure and (best is None or mean < best[0]):
            best = mean, list(each)
    return None if best is None else best[1]


def stacked_moves(
    changes: Mapping[str, Mapping[str, Floats]],
    costs: Mapping[str, Mapping[str, Mapping[str, int]]],
    resources: tuple[str, ...],
) -> tuple[Moves, tuple[tuple[str, str], ...]]:
    """Moves from nested mappings, and the (layer, option) that each stands for.

    Args:
        changes: layer → option → change of every projection, [N]; without the plan's own options.
        costs: layer → option → resource → what it takes more.
        resources: in the order that `cost` gets them.
    """
    keys = tuple((name, option) for name, each in changes.items() for option in each)
    index = {name: number for number, name in enumerate(changes)}
    return (
        Moves(
            np.array([index[name] for name, _ in keys], dtype=np.intp),
            np.array([changes[name][option] for name, option in keys], dtype=np.float64),
            np.array(
                [[costs[name][option][each] for each in resources] for name, option in keys],
                dtype=np.float64,
            ).reshape(len(keys), len(resources)),
        ),
        keys,
    )
