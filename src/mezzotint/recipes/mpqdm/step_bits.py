"""Bits of every layer's input at every denoising step: where they matter, within one average."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from torch import Tensor

from mezzotint._journal import Journal
from mezzotint.allocation import Limit, Option, Problem, solve
from mezzotint.calibration import step_scales
from mezzotint.calibration.step_ranges import calls_by_timestep
from mezzotint.formats import parse_activation_format
from mezzotint.measuring import (
    InputCandidate,
    LayerCandidates,
    Probe,
    Prober,
    Projections,
    Samples,
    StepTable,
    draw_probes,
    tell,
    timed_call,
)
from mezzotint.models import Call
from mezzotint.plan import Choice, Plan
from mezzotint.recipes.mpqdm.method import Method
from mezzotint.runtime import Calibration, shape_of
from mezzotint.runtime.structures.step_widths import NARROWEST, WIDEST

WIDTHS = range(NARROWEST, WIDEST + 1)
"""Bits that an input may have at a step."""

PROBES = 16
"""Backward passes for each step; each tells something of all layers and widths."""

BIT_MACS = "bits of inputs times multiply-accumulates"

Noises = Mapping[str, Sequence[Mapping[int, float]]]
"""Layer → for each step, in rising order of timesteps, bits of its input → noise of the output."""


@dataclass(frozen=True)
class StepBits:
    """A width for every layer's input at every step.

    Attributes:
        by_layer: layer → bits at each timestep, in rising order.
        average: timestep → bits of inputs on average over multiply-accumulates.
    """

    by_layer: Mapping[str, tuple[int, ...]]
    average: Mapping[float, float]

    def context(self) -> dict[str, object]:
        """Part of a plan's context, JSON values."""
        shown = {f"{timestep:g}": round(bits, 3) for timestep, bits in self.average.items()}
        return {"input_bits_by_timestep": shown}


def step_bits(method: Method, plan: Plan, calibration: Calibration) -> StepBits:
    """The widths of least Σ noise over all steps, within the budget's average.

    That is over all steps and multiply-accumulates of the layers that are no exception. Each noise
    is that of one layer's input at one step, rounded by the scale that its width has there, all
    else floating; errors are taken for independent.

    Args:
        method: at work.
        plan: of one width of all inputs, in the structures that the layers will have.
        calibration: of it.
    """
    steps = calls_by_timestep(method.study.job.denoiser, method.study.calls)
    choices = {layer.name: plan[layer.name] for layer in method.narrow}
    noises = input_noises_by_step(method, choices, steps, calibration)
    macs = {layer.name: layer.macs or 0 for layer in method.narrow}
    assert method.widths.activation is not None, "checked with the options"
    found = allocated_bits(noises, macs, method.widths.activation)
    return StepBits(found, dict(zip(steps, _averages(found, macs, len(steps)), strict=True)))


def input_noises_by_step(
    method: Method,
    choices: Mapping[str, Choice],
    steps: Mapping[float, Sequence[Call]],
    calibration: Calibration,
) -> Noises:
    """Noise of every layer's input at every step in every width, by probes of that step's calls.

    Args:
        method: at work.
        choices: of the layers.
        steps: timestep → its calls, rising.
        calibration: of the layers' structures.
    """
    denoiser = method.study.job.denoiser
    calls = [call for each in steps.values() for call in each]
    tables = {
        bits: step_scales(denoiser, _at_width(choices, bits), calls, calibration.tensors)
        for bits in WIDTHS
    }
    candidates = {}
    for name, choice in choices.items():
        shape = shape_of(denoiser.get_submodule(name))
        inputs = {
            str(bits): InputCandidate(
                parse_activation_format(f"uint{bits}/step"),
                steps=StepTable.each_of(choice.structures, shape, tables[bits][name]),
            )
            for bits in WIDTHS
        }
        structures = choice.with_floating_input.structures
        candidates[name] = LayerCandidates(inputs=inputs, structures=structures)
    probes = [*_probes_of_steps(list(steps.values()))]
    sample = Samples(denoiser).sample(calls[probes[0].call], probes[0].row)
    tell("Probing", len(probes), partial(timed_call, denoiser, sample, backward=True), "probes")
    prober = Prober(denoiser, calls, candidates, _no_weight, calibration=calibration)
    return _noises(prober.run(probes, Journal(None, {})), list(choices), len(steps))


def allocated_bits(
    noises: Noises, macs: Mapping[str, int], average: int
) -> dict[str, tuple[int, ...]]:
    """Layer → bits at each step: of least Σ noise, within an average over steps and MACs.

    Args:
        noises: of every layer, step and width.
        macs: layer → multiply-accumulates of a call.
        average: bits.
    """
    problem = Problem(
        {
            f"{layer} {step}": tuple(
                Option(bits, -noise, {BIT_MACS: bits * macs[layer]}) for bits, noise in each.items()
            )
            for layer, steps in noises.items()
            for step, each in enumerate(steps)
        }
    )
    total = sum(macs[layer] * len(steps) for layer, steps in noises.items())
    chosen = solve(problem, [Limit(BIT_MACS, maximum=average * total)]).chosen
    return {
        layer: tuple(int(str(chosen[f"{layer} {step}"])) for step in range(len(steps)))
        for layer, steps in noises.items()
    }


def _at_width(choices: Mapping[str, Choice], bits: int) -> dict[str, Choice]:
    return {name: replace(each, activation=f"uint{bits}/step") for name, each in choices.items()}


def _probes_of_steps(steps: Sequence[Sequence[Call]]) -> Iterator[Probe]:
    """Equal numbers of calls of every step, one step after another."""
    first = 0
    for index, calls in enumerate(steps):
        for probe in draw_probes(calls, PROBES, seed=index):
            yield replace(probe, call=first + probe.call)
        first += len(calls)


def _noises(found: Projections, layers: Sequence[str], steps: int) -> Noises:
    power = np.maximum(found.energy, np.finfo(np.float32).tiny)

    def of(layer: str) -> list[dict[int, float]]:
        squares = {bits: np.square(found.inputs[layer][str(bits)]) / power for bits in WIDTHS}
        means = {bits: each.reshape(steps, PROBES).mean(1) for bits, each in squares.items()}
        return [{bits: float(means[bits][step]) for bits in WIDTHS} for step in range(steps)]

    return {layer: of(layer) for layer in layers}


def _averages(
    bits: Mapping[str, Sequence[int]], macs: Mapping[str, int], steps: int
) -> Iterator[float]:
    total = math.fsum(macs.values()) or 1.0
    for step in range(steps):
        yield math.fsum(macs[name] * each[step] for name, each in bits.items()) / total


def _no_weight(name: str, choice: Choice) -> tuple[Tensor, Tensor | None]:
    raise AssertionError(f"layer {name}: no weight is probed, {choice} neither")
