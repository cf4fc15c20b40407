"""Bias correction, where it helps the whole plan.

A layer's mean output is right again, but of many layers together the shifts may have cancelled: on
the embedded models the noise of a plan rather rises. So it is tried, and judged by samples that
proposed no exchange; the means are of others as well, where enough were recorded.
"""

from __future__ import annotations

from dataclasses import replace

from mezzotint.recipes.auto.allocation import Found
from mezzotint.recipes.auto.held_out import gain
from mezzotint.recipes.auto.search import Search


def with_biases(search: Search, found: Found) -> tuple[Search, Found]:
    """The search whose plans correct biases, if that lowers the noise of held-out samples."""
    held = search.samples.held
    if not held.enough:
        return search, found.noting("biases stay: too few samples were recorded to try others")
    corrected = replace(search, encoding=replace(search.encoding, bias_correction=True))
    was, now = search.sample_noises([each.plan(found.choices) for each in (search, corrected)])
    fall = gain(was, now, held.samples)
    summary = {
        "held_out": held.shown,
        "held_out_gain": fall.mean,
        "standard_error": fall.error,
        "kept": fall.real,
    }
    found = replace(found, summary={**found.summary, "bias_correction": summary})
    return (corrected if fall.real else search), found
