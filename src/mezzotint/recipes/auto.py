"""The default recipe: calibrate, measure, allocate, pack."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mezzotint.allocation import Limit, Option, Problem, solve
from mezzotint.calibration import input_ranges
from mezzotint.errors import UsageError
from mezzotint.formats import FLOAT, MSE, RangeSearch, parse_activation_format
from mezzotint.models import Layer, record_calls
from mezzotint.plan import Choice, Plan
from mezzotint.recipes.base import Job, Outcome, register_recipe
from mezzotint.recipes.costs import BYTES, byte_limit, choice_bytes
from mezzotint.recipes.latency import PICOSECONDS, Deadline, deadline
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
        profile: file of `mezzotint profile` for a budget's latency; by default the model is
            profiled, once per machine.
        profile_batch: images per denoiser call that a latency is for; by default the profile's,
            or 1.
    """

    calibration_prompts: int = CALIBRATION_COUNT
    formats: tuple[str, ...] = tuple(f"int{bits}/channel" for bits in (2, 3, 4, 5, 6, 8))
    activation: str | None = None
    search: RangeSearch = MSE
    cache_bytes: int | None = CACHE_BYTES
    profile: str | None = None
    profile_batch: int | None = None

    def __post_init__(self) -> None:
        if self.calibration_prompts < 1:
            raise UsageError(f"calibration_prompts: is {self.calibration_prompts}; give 1 or more")
        if not self.formats:
            raise UsageError("formats: none given; a layer needs at least one to choose from")
        if self.profile_batch is not None and self.profile_batch < 1:
            raise UsageError(f"profile_batch: is {self.profile_batch}; give 1 or more")
        if self.cache_bytes is not None and self.cache_bytes < 0:
            raise UsageError(f"cache_bytes: {self.cache_bytes} is negative; 0 switches it off")


@register_recipe(
    "auto",
    "measure every layer, then spend the bytes where they matter",
    AutoOptions,
    takes_latency=True,
)
def auto(job: Job, options: AutoOptions) -> Outcome:
    """Exact allocation over measured, single-layer output noise.

    Noise of independent small errors adds up, so the program minimises Σ noise of the chosen
    formats under the budget: each layer's noise is measured with all other layers floating.
    """
    activation = options.activation or activation_name(job.budget.act_bits)
    choices = candidate_choices(job, options, activation)
    layers = quantizable(job)
    check_weights(job.denoiser, [layer.name for layer in layers])
    # Before hours of measuring: can the budget be met at all?
    program = _program(job, options, layers, choices)

    calls = on_device(record_calls(job.pipe, job.sampling), job)
    packing = Packing(search=options.search)
    parsed = parse_activation_format(activation)
    if parsed is not None and parsed.static:
        names = [layer.name for layer in layers]
        ranges = input_ranges(job.denoiser, dict.fromkeys(names, choices[0]), calls)
        packing = dataclasses.replace(packing, input_ranges=ranges)
    units = [Unit(layer.name, choice) for layer in layers for choice in choices]
    with Journal(job.journal, journal_header(job, calls, packing)) as journal:
        measurements = measure(
            job.denoiser, units, calls, packing, journal, cache_bytes=options.cache_bytes
        )

    problem = Problem(
        {
            name: tuple(
                Option(choice, -score.noise, program.costs[name][choice])
                for choice, score in scores.items()
            )
            for name, scores in measurements.items()
        }
    )
    solution = solve(problem, program.limits)
    chosen = {name: key for name, key in solution.chosen.items() if isinstance(key, Choice)}
    plan = Plan(
        choices=chosen,
        model=job.model,
        context=context(job)
        | {
            "recipe": "auto",
            "predicted_sqnr_db": round(-10 * math.log10(max(-solution.score, 1e-30)), 3),
            "allocation_gap": solution.gap,
        },
    )
    if program.deadline is not None:
        plan = dataclasses.replace(plan, context={**plan.context, **program.deadline.context(plan)})
    return Outcome(plan, packing, measurements)


def candidate_choices(job: Job, options: AutoOptions, activation: str) -> tuple[Choice, ...]:
    """What a layer may take.

    Under a latency also what may be faster on this machine, or slower but better: any weight
    format with a floating input, and the layer as it is.
    """
    if job.budget.latency is None:
        return tuple(Choice(weight, activation) for weight in options.formats)
    weights = [weight for weight in options.formats if weight != FLOAT]
    packed = [Choice(weight, each) for each in (activation, FLOAT) for weight in weights]
    return tuple(dict.fromkeys([*packed, Choice()]))


@dataclass(frozen=True)
class _Program:
    """All of the integer program but the scores."""

    costs: Mapping[str, Mapping[Choice, Mapping[str, int]]]
    limits: tuple[Limit, ...]
    deadline: Deadline | None


def _program(
    job: Job, options: AutoOptions, layers: Sequence[Layer], choices: Sequence[Choice]
) -> _Program:
    """Costs and limits.

    Raises:
        InfeasibleBudgetError: nothing keeps to all of them; names the nearest feasible.
    """
    costs: dict[str, dict[Choice, dict[str, int]]] = {}
    stored: dict[str, dict[Choice, int]] = {}
    for layer in layers:
        weight = job.denoiser.get_submodule(layer.name).get_parameter("weight")
        stored[layer.name] = {choice: choice_bytes(layer, choice, weight) for choice in choices}
        costs[layer.name] = {choice: {BYTES: n} for choice, n in stored[layer.name].items()}
    limits: list[Limit] = []
    if job.budget.limits_bytes:
        limits.append(byte_limit(job.budget, job.denoiser, layers, stored))
    timed = deadline(job, layers, choices, options.profile, options.profile_batch)
    if timed is not None:
        for name, each in costs.items():
            for choice, cost in each.items():
                cost[PICOSECONDS] = timed.cost(name, choice)
        timed.check(costs, limits)
        limits.append(timed.limit)
    return _Program(costs, tuple(limits), timed)
