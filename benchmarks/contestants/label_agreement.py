"""Agreement of scores of configurations with labels, with intervals, and its tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from mezzotint.errors import LabelError
from mezzotint.evaluation import Interval, bootstrap_interval
from mezzotint.labels import Labels
from mezzotint.predictors.dataset import FloatArray, IntArray
from mezzotint.predictors.figures import partial_spearman, spearman

Row = dict[str, Any]

FEWEST = 4
"""Configurations of which an order can be told."""


def agreement(scores: FloatArray, targets: FloatArray, bits: FloatArray) -> Row:
    """Rank correlations of scores and targets, and what is left of them given stored bits.

    The intervals are 95% bootstrap, over configurations.

    Args:
        scores: [n].
        targets: [n].
        bits: stored bits per weight, [n].
    """
    return {
        "spearman": asdict(_interval(len(scores), lambda at: spearman(scores[at], targets[at]))),
        "partial": asdict(
            _interval(len(scores), lambda at: partial_spearman(scores[at], targets[at], bits[at]))
        ),
    }


def _interval(count: int, figure: Callable[[IntArray], float]) -> Interval:
    """A figure of configurations by their places, which are drawn again and again."""

    def of_places(places: FloatArray, axis: int) -> float:
        return figure(places.astype(np.int64))

    return bootstrap_interval(np.arange(count), of_places)


def common(labels: Labels, others: Labels) -> tuple[IntArray, IntArray]:
    """Places in both of the configurations that both have labels of, in the order of the first.

    Raises:
        LabelError: they are of other weights or formats, or have too few in common.
    """
    if (labels.keys, labels.formats) != (others.keys, others.formats):
        raise LabelError("labels of two metrics are of other weights or formats; sample both anew")
    places = {row.tobytes(): place for place, row in enumerate(others.configurations)}
    pairs = [
        (place, places[row.tobytes()])
        for place, row in enumerate(labels.configurations)
        if row.tobytes() in places
    ]
    if len(pairs) < FEWEST:
        raise LabelError(
            f"labels of two metrics have {len(pairs)} configurations in common; sample {FEWEST} or "
            "more of one seed by both"
        )
    first, second = np.array(pairs, dtype=np.int64).T
    return first, second


def of_metrics(labels: Labels, reference: Labels) -> Row:
    """Agreement of the order that one metric finds with that of another."""
    own, other = common(labels, reference)
    found = agreement(labels.values[own], reference.values[other], labels.bits[own])
    return {"configurations": len(own), **found}


def of_bits(reference: Labels) -> Row:
    """The same of nothing but stored bits: the fewer, the worse."""
    bits = reference.bits
    found = agreement(-bits, reference.values, bits)
    return {"configurations": len(bits), **found}


def shown(found: Row) -> str:
    """A figure with its interval."""
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def markdown(rows: Sequence[Row], titles: Sequence[str], notes: Sequence[str]) -> str:
    """A table with a line for each row: its `cells`, and both correlations."""
    head = (*titles, "configurations", "Spearman ρ", "partial ρ, given bits")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for one in rows:
        figures = (str(one["configurations"]), shown(one["spearman"]), shown(one["partial"]))
        lines.append(f"| {' | '.join((*one['cells'], *figures))} |")
    return "\n".join([*lines, "", *notes]) + "\n"
