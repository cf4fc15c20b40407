"""The default recipe: calibrate, measure, allocate, pack."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch

from mezzotint._progress import track
from mezzotint.allocation import Option, Problem, solve
from mezzotint.calibration import input_ranges
from mezzotint.errors import ModelError, UsageError
from mezzotint.formats import MSE, RangeSearch, parse_activation_format
from mezzotint.models import Call, Layer, inventory, record_calls
from mezzotint.plan import Choice, Plan
from mezzotint.recipes.base import Job, Outcome, register_recipe
from mezzotint.recipes.costs import BYTES, byte_limit, choice_bytes
from mezzotint.runtime import Packing
from mezzotint.sensitivity import Journal, Measurements, Unit, check_weights, fingerprint, measure
from mezzotint.uniform import activation_name


@dataclass(frozen=True)
class AutoOptions:
    """How the default recipe looks for a plan.

    Attributes:
        formats: weight formats a layer may take.
        activation: activation format of every layer; None takes the budget's `act_bits`, per token.
        search: choice of the clipping ranges.
    """

    formats: tuple[str, ...] = tuple(f"int{bits}/channel" for bits in (2, 3, 4, 5, 6, 8))
    activation: str | None = None
    search: RangeSearch = MSE

    def __post_init__(self) -> None:
        if not self.formats:
            raise UsageError("formats: none given; a layer needs at least one to choose from")


@register_recipe("auto", "measure every layer, then spend the bytes where they matter", AutoOptions)
def auto(job: Job, options: AutoOptions) -> Outcome:
    """Exact allocation over measured, single-layer output noise.

    Noise of independent small errors adds up, so the program minimises Σ noise of the chosen
    formats under the budget: each layer's noise is measured with all other layers floating.
    """
    activation = options.activation or activation_name(job.budget.act_bits)
    choices = tuple(Choice(weight, activation) for weight in options.formats)
    layers = quantizable(job)
    check_weights(job.denoiser, [layer.name for layer in layers])
    costs: dict[str, dict[Choice, int]] = {}
    for layer in layers:
        weight = job.denoiser.get_submodule(layer.name).get_parameter("weight")
        costs[layer.name] = {choice: choice_bytes(layer, choice, weight) for choice in choices}
    # Before hours of measuring: can the budget be met at all?
    limit = byte_limit(job.budget, job.denoiser, layers, costs)

    calls = on_device(record_calls(job.pipe, job.sampling), job)
    packing = Packing(search=options.search)
    parsed = parse_activation_format(activation)
    if parsed is not None and parsed.static:
        ranges = input_ranges(job.denoiser, [layer.name for layer in layers], calls)
        packing = dataclasses.replace(packing, input_ranges=ranges)
    units = [Unit(layer.name, choice) for layer in layers for choice in choices]
    measurements = measured(job, units, calls, packing)

    problem = Problem(
        layers={
            name: tuple(
                Option(
                    key=choice.weight,
                    score=-score.noise,
                    costs={BYTES: costs[name][choice]},
                )
                for choice, score in scores.items()
            )
            for name, scores in measurements.items()
        }
    )
    solution = solve(problem, [limit])
    plan = Plan(
        choices={name: Choice(str(key), activation) for name, key in solution.chosen.items()},
        model=job.model,
        context=context(job)
        | {
            "recipe": "auto",
            "predicted_sqnr_db": round(-10 * math.log10(max(-solution.score, 1e-30)), 3),
            "allocation_gap": solution.gap,
        },
    )
    return Outcome(plan, packing, measurements)


def quantizable(job: Job) -> tuple[Layer, ...]:
    """The denoiser's layers that can be packed.

    Raises:
        ModelError: there are none.
    """
    layers = tuple(layer for layer in inventory(job.denoiser) if layer.supported)
    if not layers:
        raise ModelError(f"{job.model}: its denoiser has no Linear or Conv2d layer to quantize")
    return layers


def on_device(calls: tuple[Call, ...], job: Job) -> tuple[Call, ...]:
    """Recorded calls where the denoiser is."""
    device = next(job.denoiser.parameters()).device
    return tuple(call.to(device) for call in calls)


def measured(
    job: Job, units: list[Unit], calls: tuple[Call, ...], packing: Packing
) -> Measurements:
    """Scores of all units, with a progress bar, resumed from the job's journal."""
    # Scores do not depend on the budget: one journal serves any number of them.
    header = {key: value for key, value in context(job).items() if key != "budget"} | {
        "fingerprint": fingerprint(job.denoiser, calls),
        "search": dataclasses.asdict(packing.search),
    }
    with Journal(job.journal, header) as journal:
        shown = track(units, "Measuring", len(units))
        return measure(job.denoiser, shown, calls, packing, journal)


def context(job: Job) -> dict[str, object]:
    """What the results of a job depend on, as JSON values."""
    return {
        "budget": dataclasses.asdict(job.budget),
        "sampling": dataclasses.asdict(job.sampling) | {"prompts": list(job.sampling.prompts)},
        "torch": torch.__version__,
    }
