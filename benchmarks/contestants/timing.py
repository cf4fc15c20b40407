"""Ratios of interleaved times."""

from __future__ import annotations

import statistics


def summary(seconds: list[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(seconds), "low": min(seconds), "high": max(seconds)}


def speedup(baseline: list[float], seconds: list[float]) -> dict[str, float]:
    """Speed as a multiple of the baseline's: the ratio of medians, and the span over rounds.

    Entry i of both is of the same round. The span is that of the rounds' own ratios, which a
    machine that slows down for a while does not widen.
    """
    rounds = [a / b for a, b in zip(baseline, seconds, strict=True)]
    ratio = statistics.median(baseline) / statistics.median(seconds)
    return {"ratio": ratio, "low": min(rounds), "high": max(rounds)}
