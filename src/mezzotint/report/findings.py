"""The published findings, each judged by what the data of one model say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mezzotint.report.scored_layers import Floats, ScoredLayers

Verdict = Literal["holds", "does not hold", "cannot be told"]

Places = NDArray[np.intp]

FEWEST = 3
"""Layers on each side without which nothing can be told of a kind of layers."""

RESAMPLES = 2000

SCHEMES = ("kmeans/channel", "kmeans/tensor")
"""Both published granularities of K-Means."""

_TIME = ("time_embedding", "time_projection")
_RESNET = ("resnet_conv", "time_projection", "shortcut")
_OUTSIDE = ("input", "output", "time_embedding", "text_projection", "upsample", "downsample")


@dataclass(frozen=True)
class Finding:
    """One published finding, and what the data say of it.

    Attributes:
        claim: as published.
        judged_at: equal `nominal bits` or equal `stored bits`.
        statistic: what was compared, in words.
        value: difference of medians, in units of the scores.
        low: lower end of its 95% interval, over folds and resampled layers.
        high: upper end.
        layers: how many of them, on both sides.
        verdict: what follows.
        reason: why nothing can be told; empty where something can.
    """

    claim: str
    judged_at: str
    statistic: str
    value: float
    low: float
    high: float
    layers: tuple[int, int]
    verdict: Verdict
    reason: str = ""

    @property
    def sentence(self) -> str:
        """The finding in one sentence for people."""
        counts = f"{self.layers[0]} and {self.layers[1]} layers"
        if self.reason:
            return (
                f"{self.claim}: {self.verdict} at equal {self.judged_at}, since {self.reason} "
                f"({counts})."
            )
        return (
            f"{self.claim}: {self.verdict}. At equal {self.judged_at}, {self.statistic} is "
            f"{self.value:+.3g} [{self.low:+.3g}, {self.high:+.3g}] ({counts})."
        )


@dataclass(frozen=True, eq=False)
class _Sides:
    """Values of two groups of layers, each float64 [folds, layers]; `paired` layer by layer."""

    first: Floats
    second: Floats
    paired: bool = False

    @property
    def counts(self) -> tuple[int, int]:
        return self.first.shape[1], self.second.shape[1]


_Judge = Callable[[ScoredLayers, ScoredLayers | None, bool], Finding]


def findings_of(layers: ScoredLayers, other: ScoredLayers | None = None) -> tuple[Finding, ...]:
    """Every published finding, at equal nominal and at equal stored bits.

    Args:
        layers: scores of the model that is explained.
        other: of a second one, for the finding that compares a U-Net and a transformer.
    """
    judges = (
        *map(_preference, SCHEMES),
        _residual_blocks,
        _time_embedding,
        _queries,
        _last_layer,
    )
    return tuple(judge(layers, other, stored) for judge in judges for stored in (False, True))


def _preference(scheme: str) -> _Judge:
    """Judges what one granularity of K-Means scores beside uniform quantization."""

    def judge(layers: ScoredLayers, other: ScoredLayers | None, stored: bool) -> Finding:
        preferred = layers.preference(scheme, at_stored_bits=stored)
        preferred = preferred[:, np.isfinite(preferred).all(axis=0)]
        zero = np.zeros_like(preferred)
        name = f"K-Means per {scheme.partition('/')[2]}"
        if layers.is_unet:
            sides, claim = _Sides(zero, preferred, paired=True), f"U-Nets prefer uniform to {name}"
            what = f"the median of uniform scores above those of {name}"
        else:
            sides = _Sides(preferred, zero, paired=True)
            claim = f"transformers prefer {name} to uniform"
            what = f"the median of scores of {name} above uniform ones"
        return _judged(claim, what, sides, stored)

    return judge


def _residual_blocks(layers: ScoredLayers, other: ScoredLayers | None, stored: bool) -> Finding:
    resnet = layers.places(*_RESNET)
    inside = np.setdiff1d(np.arange(len(layers.keys)), resnet)
    inside = np.setdiff1d(inside, layers.places(*_OUTSIDE))
    return _judged(
        "residual blocks are more sensitive than transformer blocks",
        "the median of what a bit brings in residual blocks less that in transformer blocks",
        _groups(layers, resnet, inside, stored),
        stored,
    )


def _time_embedding(layers: ScoredLayers, other: ScoredLayers | None, stored: bool) -> Finding:
    time = layers.places(*_TIME)
    others = np.setdiff1d(np.arange(len(layers.keys)), time)
    return _judged(
        "the time embedding is crucial",
        "the median of what a bit brings in layers of the time embedding less that in all others",
        _groups(layers, time, others, stored),
        stored,
    )


def _queries(layers: ScoredLayers, other: ScoredLayers | None, stored: bool) -> Finding:
    """Q and K of the same block stand side by side."""
    blocks: dict[str, dict[str, int]] = {}
    for position, (role, block) in enumerate(zip(layers.roles, layers.blocks, strict=True)):
        blocks.setdefault(block, {})[role] = position
    pairs = [
        (each["self_attention_k"], each["self_attention_q"])
        for each in blocks.values()
        if {"self_attention_k", "self_attention_q"} <= each.keys()
    ]
    keys, queries = (np.array([pair[side] for pair in pairs], dtype=np.intp) for side in (0, 1))
    sides = _groups(layers, keys, queries, stored)
    return _judged(
        "queries of self-attention tolerate few bits better than keys",
        "the median of what a bit brings in keys less that in queries",
        _Sides(sides.first, sides.second, paired=True),
        stored,
    )


def _last_layer(layers: ScoredLayers, other: ScoredLayers | None, stored: bool) -> Finding:
    claim = "the final layer of transformers is more sensitive than that of U-Nets"
    what = "what a bit brings in the final layer, in medians of its own model's layers"
    by_kind = {each.is_unet: _last(each, stored) for each in (layers, other) if each is not None}
    empty = np.empty((1, 0))
    sides = _Sides(by_kind.get(False, empty), by_kind.get(True, empty))
    if len(by_kind) < 2:
        why = "it takes labels of a U-Net and of a transformer (--beside)"
        return _untold(claim, what, sides, stored, why)
    return _judged(claim, f"{what}, transformer less U-Net,", sides, stored, fewest=1)


def _last(layers: ScoredLayers, stored: bool) -> Floats:
    """Sensitivity of the final layers, [folds, layers], in medians of the model's layers."""
    values = layers.sensitivity(per_stored_bit=stored)
    typical = np.median(np.abs(values), axis=1, keepdims=True)
    return values[:, layers.places("output")] / np.where(typical > 0, typical, 1.0)


def _groups(layers: ScoredLayers, first: Places, second: Places, stored: bool) -> _Sides:
    values = layers.sensitivity(per_stored_bit=stored)
    return _Sides(values[:, first], values[:, second])


def _judged(
    claim: str, statistic: str, sides: _Sides, stored: bool, fewest: int = FEWEST
) -> Finding:
    """The verdict by the interval of the difference of medians."""
    if min(sides.counts) < fewest:
        why = f"there are fewer than {fewest} such layers on one side"
        return _untold(claim, statistic, sides, stored, why)
    value, low, high = difference_of_medians(sides.first, sides.second, paired=sides.paired)
    verdict: Verdict = "holds" if low > 0 else "does not hold" if high < 0 else "cannot be told"
    return Finding(claim, _bits(stored), statistic, value, low, high, sides.counts, verdict)


def _untold(claim: str, statistic: str, sides: _Sides, stored: bool, reason: str) -> Finding:
    none = float("nan")
    return Finding(
        claim, _bits(stored), statistic, none, none, none, sides.counts, "cannot be told", reason
    )


def _bits(stored: bool) -> str:
    return "stored bits" if stored else "nominal bits"


def difference_of_medians(
    first: Floats, second: Floats, *, paired: bool, seed: int = 0
) -> tuple[float, float, float]:
    """Median of the first less that of the second, with its 95% interval.

    The value is that of the means over folds; each resample draws a fold of either side, and layers
    with replacement.

    Args:
        first: [folds, layers].
        second: [folds, layers]; of other layers, or of the same where they are paired.
        paired: draw the same folds and layers of both, and take the median of the differences.
        seed: of the drawing.
    """
    generator = np.random.default_rng(seed)
    one, other = _draws(first, generator), _draws(second, generator)
    other = one if paired else other
    found = _difference(first[one], second[other], paired=paired)
    low, high = np.quantile(found, [0.025, 0.975])
    value = _difference(first.mean(axis=0), second.mean(axis=0), paired=paired)
    return float(value), float(low), float(high)


def _draws(
    values: Floats, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Folds, [resamples, 1], and layers of each with replacement, [resamples, layers]."""
    folds, layers = values.shape
    return (
        generator.integers(folds, size=(RESAMPLES, 1)),
        generator.integers(layers, size=(RESAMPLES, layers)),
    )


def _difference(first: Floats, second: Floats, *, paired: bool) -> Floats:
    """Difference of the medians along the last axis."""
    if paired:
        return np.asarray(np.median(first - second, axis=-1))
    return np.asarray(np.median(first, axis=-1) - np.median(second, axis=-1))
