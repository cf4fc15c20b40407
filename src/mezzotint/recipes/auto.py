"""The default recipe: calibrate, measure, allocate, pack."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from mezzotint.allocation import Limit, Option, Problem, Solution, solve
from mezzotint.errors import UsageError
from mezzotint.formats import FLOAT, RangeSearch
from mezzotint.measuring import (
    CACHE_BYTES,
    Figures,
    LayerChange,
    Metric,
    Noise,
    chosen_metric,
    decibels,
)
from mezzotint.plan import Budget, CallSelection, Choice, Encoding, Plan, activation_name
from mezzotint.recipes.costs import BYTES, byte_limit, choice_bytes
from mezzotint.recipes.default_prompts import CALIBRATION_COUNT
from mezzotint.recipes.found_structures import Shortcuts
from mezzotint.recipes.job import Job, Outcome, register_recipe
from mezzotint.recipes.latency import PICOSECONDS, Deadline, deadline
from mezzotint.recipes.option_values import check_words, selected_calls
from mezzotint.recipes.study import Study


@dataclass(frozen=True)
class Auto:
    """The default recipe: exact allocation over what was measured, and how it looks for a plan.

    Attributes:
        calibration_prompts: how many to take where none are given.
        calls: the most calls of the denoiser to keep of the pipeline's run, at timesteps spread
            over all of it, of 8 samples each; none for all of them, whole.
        formats: weight formats a layer may take.
        activation: activation format of every layer; None takes the budget's `act_bits`, per token.
        bos: keep the constant first token of text embeddings out of the quantizers (MixDQ).
        shortcuts: which layers get a quantizer per half of a concatenated input (MixDQ):
            `shortcuts` of residual blocks, all `concatenations` that a layer reads directly, or
            `none`.
        search: choice of the clipping ranges.
        metric: what the plan makes least, a metric such as `ImageError(4)`, or the name of a
            registered one: `noise` of the denoiser's output, or by images `ssim` and `image-error`.
        cache_bytes: memory for what runs before a layer while that is measured, which saves about
            two fifths of the time; None for no bound, 0 to run every call in full. Plans do not
            depend on it.
        profile: file of `mezzotint profile` for a budget's latency; by default the model is
            profiled, once per machine.
        profile_batch: images per denoiser call that a latency is for; by default the profile's,
            or 1.
    """

    calibration_prompts: int = CALIBRATION_COUNT
    calls: int | None = CallSelection.calls
    formats: tuple[str, ...] = tuple(f"int{bits}/channel" for bits in (2, 3, 4, 5, 6, 8))
    activation: str | None = None
    bos: bool = True
    shortcuts: Shortcuts = "shortcuts"
    search: RangeSearch = Encoding.search
    metric: str | Metric = "noise"
    cache_bytes: int | None = CACHE_BYTES
    profile: str | None = None
    profile_batch: int | None = None

    def __post_init__(self) -> None:
        check_words(self)
        chosen_metric(self.metric)
        if self.calibration_prompts < 1:
            raise UsageError(f"calibration_prompts: is {self.calibration_prompts}; give 1 or more")
        selected_calls(self.calls)
        if not self.formats:
            raise UsageError("formats: none given; a layer needs at least one to choose from")
        if self.profile_batch is not None and self.profile_batch < 1:
            raise UsageError(f"profile_batch: is {self.profile_batch}; give 1 or more")
        if self.cache_bytes is not None and self.cache_bytes < 0:
            raise UsageError(f"cache_bytes: {self.cache_bytes} is negative; 0 switches it off")


@register_recipe(
    "auto",
    "measure every layer, then spend the bytes where they matter",
    Auto,
    takes_latency=True,
)
def auto(job: Job, options: Auto) -> Outcome:
    """Exact allocation over measured, single-layer losses.

    Noise of independent small errors adds up, so the program minimises Σ noise of the chosen
    formats under the budget: each layer's noise is measured with all other layers floating.
    """
    study = Study.of(
        job,
        bos=options.bos,
        shortcuts=options.shortcuts,
        momentum=None,
        selection=selected_calls(options.calls),
    )
    formats = candidate_formats(job.budget, options)
    candidates = study.structured(formats)
    timed = deadline(study, formats, options.profile, options.profile_batch)
    # Before hours of measuring: can the budget be met at all?
    program = integer_program(study, candidates, timed)

    calibration, encoding = study.calibrated(candidates), Encoding(options.search)
    metric = chosen_metric(options.metric)
    changes = [
        LayerChange(name, choice, encoding) for name, each in candidates.items() for choice in each
    ]
    with study.measuring(calibration, cache_bytes=options.cache_bytes) as measuring:
        measurements = measuring.layers(changes, metric)

    solution = least_loss(program, measurements, metric)
    plan = study.settled(plan_of(study, solution, metric, encoding))
    if timed is not None:
        plan = dataclasses.replace(plan, context={**plan.context, **timed.context(plan)})
    return Outcome(plan, calibration, measurements, measuring.journal.record)


def candidate_formats(budget: Budget, options: Auto) -> tuple[Choice, ...]:
    """The formats that a layer may take.

    Under a latency also what may be faster on this machine, or slower but better: any weight
    format with a floating input, and the layer as it is.
    """
    activation = options.activation or activation_name(budget.act_bits)
    if budget.latency is None:
        return tuple(
            Choice(weight, FLOAT if weight == FLOAT else activation) for weight in options.formats
        )
    weights = [weight for weight in options.formats if weight != FLOAT]
    packed = [Choice(weight, each) for each in (activation, FLOAT) for weight in weights]
    return tuple(dict.fromkeys([*packed, Choice()]))


@dataclass(frozen=True)
class IntegerProgram:
    """All of the integer program but the scores.

    Attributes:
        costs: layer → choice → resource → what it takes of it.
        limits: on the resources.
    """

    costs: Mapping[str, Mapping[Choice, Mapping[str, int]]]
    limits: tuple[Limit, ...]


def integer_program(
    study: Study, candidates: Mapping[str, tuple[Choice, ...]], timed: Deadline | None
) -> IntegerProgram:
    """Costs and limits.

    Raises:
        InfeasibleBudgetError: nothing keeps to all of them; names the nearest feasible.
    """
    budget = study.job.budget
    costs: dict[str, dict[Choice, dict[str, int]]] = {}
    stored: dict[str, dict[Choice, int]] = {}
    for layer in study.layers:
        weight, choices = study.weight(layer), candidates[layer.name]
        stored[layer.name] = {choice: choice_bytes(layer, choice, weight) for choice in choices}
        costs[layer.name] = {choice: {BYTES: n} for choice, n in stored[layer.name].items()}
    limits: list[Limit] = []
    if budget.limits_bytes:
        limits.append(byte_limit(budget, study.job.denoiser, study.layers, stored))
    if timed is not None:
        for name, each in costs.items():
            for choice, cost in each.items():
                cost[PICOSECONDS] = timed.cost(name, choice)
        timed.check(costs, limits)
        limits.append(timed.limit)
    return IntegerProgram(costs, tuple(limits))


def least_loss(
    program: IntegerProgram,
    measurements: Mapping[str, Mapping[Choice, Figures]],
    metric: Metric,
) -> Solution:
    """The choices of least Σ loss within the limits."""
    problem = Problem(
        {
            name: tuple(
                Option(choice, -metric.loss(figures), program.costs[name][choice])
                for choice, figures in found.items()
            )
            for name, found in measurements.items()
        }
    )
    return solve(problem, program.limits)


def plan_of(study: Study, solution: Solution, metric: Metric, encoding: Encoding) -> Plan:
    """The plan of a solution, with what it predicts."""
    chosen = {name: key for name, key in solution.chosen.items() if isinstance(key, Choice)}
    loss = max(-solution.score, 1e-30)
    if isinstance(metric, Noise):
        predicted = {"predicted_sqnr_db": round(decibels(loss), 3)}
    else:
        predicted = {f"predicted_{metric.kind}_loss": loss}
    reasons = study.structures.reasons()
    return Plan(
        choices=chosen,
        model=study.job.model,
        reasons={name: why for name, why in reasons.items() if chosen[name].structures},
        context={
            **study.context(),
            "recipe": "auto",
            **predicted,
            "allocation_gap": solution.gap,
        },
        encoding=encoding,
    )
