"""The default recipe: calibrate, measure, allocate, pack."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mezzotint.allocation import Limit, Option, Problem, Solution, solve
from mezzotint.calibration import input_ranges, with_settings
from mezzotint.errors import UsageError
from mezzotint.formats import FLOAT, RangeSearch
from mezzotint.models import Call, Layer, on_device, record_calls
from mezzotint.plan import CalibrationSettings, Choice, Encoding, Plan, activation_name
from mezzotint.recipes.base import Job, Outcome, register_recipe
from mezzotint.recipes.costs import BYTES, byte_limit, choice_bytes
from mezzotint.recipes.latency import PICOSECONDS, Deadline, deadline
from mezzotint.recipes.measuring import context, journal_header, quantizable
from mezzotint.recipes.options import check_words
from mezzotint.recipes.prompts import CALIBRATION_COUNT
from mezzotint.recipes.structure import Shortcuts, Structure, find_structure
from mezzotint.runtime import Calibration
from mezzotint.sensitivity import CACHE_BYTES, Journal, Score, Unit, check_weights, measure


@dataclass(frozen=True)
class AutoOptions:
    """How the default recipe looks for a plan.

    Attributes:
        calibration_prompts: how many to take where none are given.
        formats: weight formats a layer may take.
        activation: activation format of every layer; None takes the budget's `act_bits`, per token.
        bos: keep the constant first token of text embeddings out of the quantizers (MixDQ).
        shortcuts: which layers get a quantizer per half of a concatenated input (MixDQ):
            `shortcuts` of residual blocks, all `concatenations` that a layer reads directly, or
            `none`.
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
    bos: bool = True
    shortcuts: Shortcuts = "shortcuts"
    search: RangeSearch = Encoding.search
    cache_bytes: int | None = CACHE_BYTES
    profile: str | None = None
    profile_batch: int | None = None

    def __post_init__(self) -> None:
        check_words(self)
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
    calls = on_device(record_calls(job.pipe, job.sampling), job.denoiser)
    structure = find_structure(job, layers, calls, bos=options.bos, shortcuts=options.shortcuts)
    timed = deadline(
        job, layers, choices, options.profile, options.profile_batch, structure.structures
    )
    candidates = _Candidates.of(layers, choices, structure)
    # Before hours of measuring: can the budget be met at all?
    program = _program(job, candidates, timed)
    calibration = _calibrated(job, candidates, structure, calls)
    encoding = Encoding(options.search)
    with Journal(job.journal, journal_header(job, calls, encoding)) as journal:
        measurements = measure(
            job.denoiser,
            candidates.units(encoding),
            calls,
            calibration,
            journal,
            cache_bytes=options.cache_bytes,
        )

    solution = _solved(program, measurements)
    chosen = {name: key for name, key in solution.chosen.items() if isinstance(key, Choice)}
    plan = Plan(
        choices=chosen,
        model=job.model,
        reasons={n: why for n, why in structure.reasons().items() if chosen[n].structures},
        context=context(job)
        | {
            "recipe": "auto",
            "notes": list(structure.notes),
            "predicted_sqnr_db": round(-10 * math.log10(max(-solution.score, 1e-30)), 3),
            "allocation_gap": solution.gap,
        },
        encoding=encoding,
    )
    plan = with_settings(plan, CalibrationSettings(job.sampling, len(calls)))
    if timed is not None:
        plan = dataclasses.replace(plan, context={**plan.context, **timed.context(plan)})
    return Outcome(plan, calibration, measurements)


def candidate_choices(job: Job, options: AutoOptions, activation: str) -> tuple[Choice, ...]:
    """What a layer may take.

    Under a latency also what may be faster on this machine, or slower but better: any weight
    format with a floating input, and the layer as it is.
    """
    if job.budget.latency is None:
        return tuple(
            Choice(weight, FLOAT if weight == FLOAT else activation) for weight in options.formats
        )
    weights = [weight for weight in options.formats if weight != FLOAT]
    packed = [Choice(weight, each) for each in (activation, FLOAT) for weight in weights]
    return tuple(dict.fromkeys([*packed, Choice()]))


@dataclass(frozen=True)
class _Candidates:
    """The layers, and what each of them may take."""

    layers: Sequence[Layer]
    choices: Mapping[str, tuple[Choice, ...]]

    @classmethod
    def of(
        cls, layers: Sequence[Layer], choices: Sequence[Choice], structure: Structure
    ) -> _Candidates:
        """The same formats for every layer, with its own structure."""
        found = {
            layer.name: tuple(structure.applied(layer.name, choice) for choice in choices)
            for layer in layers
        }
        return cls(layers, found)

    def units(self, encoding: Encoding) -> list[Unit]:
        """What is to be measured, of weights that are rounded like this."""
        return [
            Unit(name, choice, encoding) for name, each in self.choices.items() for choice in each
        ]


def _calibrated(
    job: Job, candidates: _Candidates, structure: Structure, calls: tuple[Call, ...]
) -> Calibration:
    """The first tokens' constants, and ranges of all inputs where they are static."""
    calibration = Calibration(tensors=structure.constants)
    static = {
        name: choice
        for name, choices in candidates.choices.items()
        for choice in choices
        if choice.static
    }
    if not static:
        return calibration
    ranges = input_ranges(job.denoiser, static, calls, tensors=calibration.tensors)
    return dataclasses.replace(calibration, input_ranges=ranges)


@dataclass(frozen=True)
class _Program:
    """All of the integer program but the scores."""

    costs: Mapping[str, Mapping[Choice, Mapping[str, int]]]
    limits: tuple[Limit, ...]


def _program(job: Job, candidates: _Candidates, timed: Deadline | None) -> _Program:
    """Costs and limits.

    Raises:
        InfeasibleBudgetError: nothing keeps to all of them; names the nearest feasible.
    """
    costs: dict[str, dict[Choice, dict[str, int]]] = {}
    stored: dict[str, dict[Choice, int]] = {}
    for layer in candidates.layers:
        weight = job.denoiser.get_submodule(layer.name).get_parameter("weight")
        choices = candidates.choices[layer.name]
        stored[layer.name] = {choice: choice_bytes(layer, choice, weight) for choice in choices}
        costs[layer.name] = {choice: {BYTES: n} for choice, n in stored[layer.name].items()}
    limits: list[Limit] = []
    if job.budget.limits_bytes:
        limits.append(byte_limit(job.budget, job.denoiser, candidates.layers, stored))
    if timed is not None:
        for name, each in costs.items():
            for choice, cost in each.items():
                cost[PICOSECONDS] = timed.cost(name, choice)
        timed.check(costs, limits)
        limits.append(timed.limit)
    return _Program(costs, tuple(limits))


def _solved(program: _Program, measurements: Mapping[str, Mapping[Choice, Score]]) -> Solution:
    """The plan of least Σ noise within the limits."""
    problem = Problem(
        {
            name: tuple(
                Option(choice, -score.noise, program.costs[name][choice])
                for choice, score in scores.items()
            )
            for name, scores in measurements.items()
        }
    )
    return solve(problem, program.limits)
