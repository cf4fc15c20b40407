"""Metric-decoupled sensitivity (MixDQ, section 4.2): one layer changed, all others floating."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mezzotint.measuring import (
    Figures,
    InputChange,
    LayerChange,
    Measurements,
    Metric,
    Noise,
    Similarity,
    Task,
    Unchanged,
    decibels,
)
from mezzotint.models import LayerGroup
from mezzotint.plan import Choice
from mezzotint.recipes.mixdq.method import Method, Setting
from mezzotint.recipes.mixdq.programs import Sensitivity
from mezzotint.recipes.mixdq.screening import negligible

HIGHEST_DB = 200.0
"""Score of a layer that changes nothing at all; programs need finite numbers."""

Changes = Mapping[str, Mapping[int, LayerChange | InputChange]]
"""Layer → width → change."""


def weight_changes(setting: Setting) -> Changes:
    """Every candidate width of every weight, inputs floating."""
    return {
        name: {
            w: LayerChange(name, setting.choice(name, w, None), setting.encoding)
            for w in setting.weight_widths(name)
        }
        for name in setting.groups
    }


def input_changes(setting: Setting, widths: Sequence[int]) -> Changes:
    """These widths of every input, weights floating; inputs that are pinned to float are left."""
    found = {
        name: {
            w: InputChange(name, setting.choice(name, 8, w))
            for w in setting.input_widths(name, widths)
        }
        for name in setting.groups
    }
    return {name: each for name, each in found.items() if each}


def unmeasured(setting: Setting, changes: Changes) -> dict[str, Sensitivity]:
    """The widths alone: enough to see whether a budget leaves anything to decide."""
    return {
        name: Sensitivity(setting.groups[name], dict.fromkeys(each, 0.0), dict.fromkeys(each, 0.0))
        for name, each in changes.items()
    }


def metric_of(method: Method, group: LayerGroup) -> Metric:
    """Content layers are judged by the images' SSIM, the others by the output's SQNR."""
    decoupled = method.options.metric == "decoupled" and group is LayerGroup.CONTENT
    return Similarity() if decoupled else Noise()


def measured(method: Method, changes: Changes, average: float) -> Measurements:
    """Figures of every change, each by its group's metric; and the noise floor of images.

    Where the options ask for it, changes that cannot matter are not measured: their noise is that
    which probes tell, and their images count as unchanged.

    Args:
        method: runs and journals measurements.
        changes: of weights, or of inputs.
        average: bits that the budget allows.
    """
    spared = negligible(method, changes, average) if method.options.screen else {}
    by_metric: dict[Metric, list[LayerChange | InputChange]] = {}
    found: dict[str, dict[Choice, Figures]] = {name: {} for name in changes}
    for name, candidates in changes.items():
        metric = metric_of(method, method.groups[name])
        wanted = [each for w, each in candidates.items() if w not in spared.get(name, {})]
        by_metric.setdefault(metric, []).extend(wanted)
    for metric in sorted(by_metric, key=lambda metric: metric.sees == "images"):
        unchanged: Figures = {}
        if metric.sees == "images":
            (unchanged,) = method.measuring.figures([Task(Unchanged(), metric)])
        for name, figures in method.measuring.layers(by_metric[metric], metric).items():
            found[name].update(figures)
        for name, widths in spared.items():
            if metric_of(method, method.groups[name]) == metric:
                found[name].update(
                    {changes[name][w].choice: unchanged or {"noise": n} for w, n in widths.items()}
                )
    return found


def sensitivities(method: Method, changes: Changes, found: Measurements) -> dict[str, Sensitivity]:
    """The measurements by layer and width, in the order of execution."""
    result = {}
    for name, candidates in changes.items():
        group = method.groups[name]
        metric = metric_of(method, group)
        figures = {width: found[name][change.choice] for width, change in candidates.items()}
        result[name] = Sensitivity(
            group=group,
            scores={width: _score(each) for width, each in figures.items()},
            losses={width: metric.loss(each) for width, each in figures.items()},
        )
    return result


def _score(figures: Figures) -> float:
    """The published metric, larger is better."""
    if "ssim" in figures:
        return figures["ssim"]
    return min(decibels(figures["noise"]), HIGHEST_DB)
