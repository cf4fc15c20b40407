"""Metric-decoupled sensitivity (MixDQ, section 4.2): one layer changed, all others floating."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mezzotint.models import Group
from mezzotint.plan import Choice
from mezzotint.recipes.mixdq.lab import Lab
from mezzotint.recipes.mixdq.programs import Sensitivity
from mezzotint.sensitivity import Score, Similarity, Unit, measure, measure_images

HIGHEST_DB = 200.0
"""What a layer scores that changes nothing at all; programs need finite numbers."""

Found = Mapping[str, Mapping[Choice, Score | Similarity]]


def weight_units(lab: Lab) -> dict[str, dict[int, Unit]]:
    """Every candidate width of every weight, inputs floating."""
    widths = {
        Group.CONTENT: lab.options.content_weight_bits,
        Group.QUALITY: lab.options.quality_weight_bits,
    }
    return {
        name: {
            width: Unit(name, lab.choice(name, width, None), lab.encoding)
            for width in widths[group]
        }
        for name, group in lab.groups.items()
    }


def input_units(lab: Lab, widths: Sequence[int]) -> dict[str, dict[int, Unit]]:
    """These widths of every input, weights floating."""
    return {
        name: {
            width: Unit(name, lab.choice(name, 8, width), lab.encoding, input_only=True)
            for width in widths
        }
        for name in lab.groups
    }


def unmeasured(lab: Lab, units: Mapping[str, Mapping[int, Unit]]) -> dict[str, Sensitivity]:
    """The widths alone: enough to see whether a budget leaves anything to decide."""
    return {
        name: Sensitivity(lab.groups[name], dict.fromkeys(each, 0.0), dict.fromkeys(each, 0.0))
        for name, each in units.items()
    }


def measured(lab: Lab, units: Mapping[str, Mapping[int, Unit]]) -> Found:
    """Content layers by the images' SSIM, the others by the SQNR of the denoiser's output."""
    by_images: list[Unit] = []
    by_output: list[Unit] = []
    for name, candidates in units.items():
        decoupled = lab.options.metric == "decoupled" and lab.groups[name] is Group.CONTENT
        (by_images if decoupled else by_output).extend(candidates.values())
    memory = lab.options.cache_bytes
    noise = measure(
        lab.job.denoiser, by_output, lab.calls, lab.calibration, lab.journal, cache_bytes=memory
    )
    if not by_images:
        return noise
    likeness = measure_images(
        lab.images, by_images, lab.calibration, lab.journal, cache_bytes=memory
    )
    return {**noise, **likeness.scores}


def sensitivities(
    lab: Lab, units: Mapping[str, Mapping[int, Unit]], found: Found
) -> dict[str, Sensitivity]:
    """What was measured, by layer and width, in the order of execution."""
    return {
        name: Sensitivity(
            group=lab.groups[name],
            scores={w: _score(found[name][unit.choice]) for w, unit in candidates.items()},
            losses={w: _loss(found[name][unit.choice]) for w, unit in candidates.items()},
        )
        for name, candidates in units.items()
    }


def _score(measurement: Score | Similarity) -> float:
    if isinstance(measurement, Similarity):
        return measurement.ssim
    return min(measurement.sqnr_db, HIGHEST_DB)


def _loss(measurement: Score | Similarity) -> float:
    if isinstance(measurement, Similarity):
        return 1.0 - measurement.ssim
    return measurement.noise
