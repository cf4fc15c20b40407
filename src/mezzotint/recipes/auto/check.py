"""The check of the whole plan: its real noise, and what of it comes from quantized inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mezzotint.calibration import InputSpread, input_spreads
from mezzotint.measuring import Noise, decibels
from mezzotint.recipes.auto.allocation import Found
from mezzotint.recipes.auto.names import unsmoothed
from mezzotint.recipes.auto.noisy_inputs import InputNoise, floating_reasons, warning
from mezzotint.recipes.auto.search import Search

_LEAST = 1e-30


@dataclass(frozen=True)
class Checked:
    """A plan, and what there is to say about it.

    Attributes:
        found: the plan.
        reasons: layer → why its input stays floating.
        context: of the plan, JSON values.
    """

    found: Found
    reasons: Mapping[str, str]
    context: Mapping[str, object]


def checked(search: Search, found: Found) -> Checked:
    """Measure the plan, unless all is to be predicted; warn where its inputs ruin it."""
    choices = found.choices
    predicted = max(found.losses.of_plan(choices), _LEAST)
    context = {**found.summary, **_told(search, "predicted", predicted)}
    floating = {name: each.with_floating_input for name, each in choices.items()}
    quantizes = floating != dict(choices)
    noise = InputNoise(predicted, found.losses.of_plan(floating))
    if search.verifies:
        plans = [search.plan(each) for each in ([choices, floating] if quantizes else [choices])]
        losses = [max(loss, _LEAST) for loss in search.plan_losses(plans)]
        noise = InputNoise(losses[0], losses[-1])
        if quantizes and isinstance(search.metric, Noise) and math.isfinite(noise.ratio):
            context["inputs_cost_db"] = round(-decibels(noise.ratio), 2)
        context |= _told(search, "measured", losses[0])
        found = found.noting(_apart(search, predicted, losses[0]))
    spreads = _spreads(search) if quantizes else {}
    if quantizes and noise.dominates:
        found = found.noting(warning(noise, choices, found.losses, spreads))
    reasons = floating_reasons(choices, found.losses, spreads) if quantizes else {}
    return Checked(found, reasons, context)


def _spreads(search: Search) -> dict[str, InputSpread]:
    layers = {name: unsmoothed(each[0]) for name, each in search.candidates.items()}
    denoiser = search.study.job.denoiser
    return input_spreads(denoiser, layers, search.study.calls, search.calibration.tensors)


def _told(search: Search, how: str, loss: float) -> dict[str, object]:
    if not math.isfinite(loss):  # JSON knows no infinity
        return {}
    if isinstance(search.metric, Noise):
        return {f"{how}_sqnr_db": round(decibels(loss), 3)}
    return {f"{how}_{search.metric.kind}_loss": loss}


def _apart(search: Search, predicted: float, found: float) -> str:
    """A line for people on how far the estimate was off."""
    if not math.isfinite(found):
        return "warning: under the plan, outputs hold NaN or infinite values; allow more bits"
    if isinstance(search.metric, Noise):
        off = decibels(found) - decibels(predicted)
        return (
            f"the plan's output has {decibels(found):.2f} dB of signal to noise on "
            f"{search.samples.shown}, {abs(off):.2f} dB {'more' if off > 0 else 'less'} than "
            "predicted"
        )
    return (
        f"the plan's loss by {search.metric.kind} is {found:.4g} on the recorded prompts, "
        f"{found / predicted:.3g} times what was predicted"
    )
