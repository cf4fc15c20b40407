"""The default recipe: calibrate, measure, allocate, pack."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from mezzotint.allocation import Option, Problem, solve
from mezzotint.calibration import input_ranges
from mezzotint.errors import UsageError
from mezzotint.formats import MSE, RangeSearch, parse_activation_format
from mezzotint.models import record_calls
from mezzotint.plan import Choice, Plan
from mezzotint.recipes.base import Job, Outcome, register_recipe
from mezzotint.recipes.costs import BYTES, byte_limit, choice_bytes
from mezzotint.recipes.measuring import context, journal_header, on_device, quantizable
from mezzotint.recipes.prompts import CALIBRATION_COUNT
from mezzotint.runtime import Packing
from mezzotint.sensitivity import CACHE_BYTES, Journal, Unit, check_weights, measure
from mezzotint.uniform import activation_name


@dataclass(frozen=True)
class AutoOptions:
    """How the default recipe looks for a plan.

    Attributes:
        calibration_prompts: how many to take where none are given.
        formats: weight formats a layer may take.
        activation: activation format of every layer; None takes the budget's `act_bits`, per token.
        search: choice of the clipping ranges.
        cache_bytes: memory for what runs before a layer while that is measured, which saves about
            two fifths of the time; None for no bound, 0 to run every call in full. Plans do not
            depend on it.
    """

    calibration_prompts: int = CALIBRATION_COUNT
    formats: tuple[str, ...] = tuple(f"int{bits}/channel" for bits in (2, 3, 4, 5, 6, 8))
    activation: str | None = None
    search: RangeSearch = MSE
    cache_bytes: int | None = CACHE_BYTES

    def __post_init__(self) -> None:
        if self.calibration_prompts < 1:
            raise UsageError(f"calibration_prompts: is {self.calibration_prompts}; give 1 or more")
        if not self.formats:
            raise UsageError("formats: none given; a layer needs at least one to choose from")
        if self.cache_bytes is not None and self.cache_bytes < 0:
            raise UsageError(f"cache_bytes: {self.cache_bytes} is negative; 0 switches it off")


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
        ranges = input_ranges(job.denoiser, dict.fromkeys(costs, choices[0]), calls)
        packing = dataclasses.replace(packing, input_ranges=ranges)
    units = [Unit(layer.name, choice) for layer in layers for choice in choices]
    with Journal(job.journal, journal_header(job, calls, packing)) as journal:
        measurements = measure(
            job.denoiser, units, calls, packing, journal, cache_bytes=options.cache_bytes
        )

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
