"""The curve between size and quality: plans of several budgets, measured once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from rich.table import Table
from torch import nn

from mezzotint._journal import Record
from mezzotint._progress import announcer
from mezzotint._tables import titled_table
from mezzotint._words import listed
from mezzotint.errors import UsageError
from mezzotint.measuring import ExecutorFactory
from mezzotint.models import Example, Sampling, component_names, model_name, quantized_alone
from mezzotint.pipeline import float_denoiser, measuring_settings
from mezzotint.plan import Budget, Plan
from mezzotint.profiling import Profile, check_profile, predict
from mezzotint.recipes import Auto, Job, ready, recipe_named
from mezzotint.recipes.auto import BudgetedPlan, plans_of
from mezzotint.recipes.given import check_sweep, several_budgets
from mezzotint.runtime import module_bytes

VERSION = 1
"""Version of the JSON form."""


@dataclass(frozen=True)
class SweepPoint:
    """One budget of a sweep, and what its plan costs and loses.

    Attributes:
        budget: what was asked for.
        plan: what every layer takes; `apply` packs it.
        denoiser_bytes: stored bytes of the whole denoiser, or of all components quantized.
        weight_bits: stored bits per weight, averaged over the quantized layers.
        predicted_sqnr_db: signal to noise of the denoiser's output by the layers' summed losses.
        measured_sqnr_db: of the plan really run; None where it was not (sensitivity `probes`).
        latency_ms: predicted, of one call; None without a profile.
    """

    budget: Budget
    plan: Plan
    denoiser_bytes: int
    weight_bits: float
    predicted_sqnr_db: float | None
    measured_sqnr_db: float | None
    latency_ms: float | None = None

    @property
    def label(self) -> str:
        """The budget as a name of a file: `4bit`, `6MB`."""
        return budget_label(self.budget)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; the plan is a file of its own."""
        budget = self.budget
        return {
            "label": self.label,
            "budget": {"weight_bits": budget.weight_bits, "size": budget.size},
            "denoiser_bytes": self.denoiser_bytes,
            "weight_bits": self.weight_bits,
            "predicted_sqnr_db": self.predicted_sqnr_db,
            "measured_sqnr_db": self.measured_sqnr_db,
            "latency_ms": self.latency_ms,
        }


@dataclass(frozen=True)
class Sweep:
    """Plans of one model under several budgets, smallest first.

    Attributes:
        model: what the user calls it.
        points: one for each budget.
        act_bits: of all budgets.
        floating_bytes: stored bytes of the same before it is quantized.
        floating_ms: of one call of it, in the profile; None without one.
        record: all that was measured, for other budgets.
    """

    model: str
    points: tuple[SweepPoint, ...]
    act_bits: float
    floating_bytes: int
    floating_ms: float | None = None
    record: Record | None = None

    @property
    def subject(self) -> str:
        """Name of what is quantized, for people."""
        several = any(point.plan.components for point in self.points)
        return "quantized components" if several else "denoiser"

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "version": VERSION,
            "model": self.model,
            "act_bits": self.act_bits,
            "floating_bytes": self.floating_bytes,
            "floating_latency_ms": self.floating_ms,
            "points": [point.to_dict() for point in self.points],
        }

    def table(self) -> Table:
        """A row per budget."""
        columns = ["budget", f"bytes of the {self.subject}:", "of float:", "bits per weight:"]
        columns += ["predicted dB:", "measured dB:"]
        if self.floating_ms is not None:
            columns += ["call ms:", "of float ms:"]
        title = f"{self.model}: {len(self.points)} budgets, inputs of {self.act_bits:g} bits"
        table = titled_table(title, *columns)
        for point in self.points:
            cells = [
                point.label,
                f"{point.denoiser_bytes:,}",
                f"{point.denoiser_bytes / self.floating_bytes:.3f}x",
                f"{point.weight_bits:.3f}",
                _decibels(point.predicted_sqnr_db),
                _decibels(point.measured_sqnr_db),
            ]
            if self.floating_ms is not None and point.latency_ms is not None:
                cells += [f"{point.latency_ms:.2f}", f"{point.latency_ms / self.floating_ms:.2f}x"]
            table.add_row(*cells)
        return table


def sweep(  # noqa: PLR0913  (all but three are keywords)
    pipe: DiffusionPipeline,
    budgets: Iterable[Budget | float],
    recipe: Auto | None = None,
    *,
    sampling: Sampling | None = None,
    calls: Iterable[Example] | None = None,
    journal: str | Path | None = None,
    measurements: str | Path | None = None,
    executor: str | ExecutorFactory | None = None,
    profile: str | Path | None = None,
    components: Sequence[str] | None = None,
) -> Sweep:
    """Find the plans of several budgets for the pipeline's denoiser, measuring once.

    Each plan is the one that `quantize` finds for that budget. Nothing is packed: `apply` does it,
    for the plan that is chosen.

    Args:
        pipe: as for `quantize`.
        budgets: which differ in bytes alone; a number stands for that many bits per weight.
        recipe: options of `auto`; by default its defaults.
        sampling: as for `quantize`.
        calls: as for `quantize`.
        journal: as for `quantize`, of which the journal is gone on with as well.
        measurements: as for `quantize`.
        executor: as for `quantize`.
        profile: file of `mezzotint profile`, of one denoiser: tells the latency of every plan. Of
            the default formats, those in it are taken.
        components: as for `quantize`.

    Raises:
        UsageError: there are no budgets, or they differ in more, or are of the whole pipeline;
            otherwise as `quantize`.
        InfeasibleBudgetError: one cannot be met, found before anything is measured.
        ProfileError: the profile is of another model or machine, or lacks a choice.
        CalibrationError, JournalError, ExecutorError: as `quantize`.
    """
    check_sweep(pipe, recipe, sampling)
    options = recipe or Auto()
    if not isinstance(options, Auto):
        raise UsageError(f"recipe: is a {type(options).__name__}; a sweep takes Auto(...)")
    asked = several_budgets(budgets)
    denoiser = float_denoiser(pipe, components)
    known = None if profile is None else _profile(Path(profile), denoiser)
    job = Job(
        denoiser=denoiser,
        model=model_name(pipe),
        budget=asked[0] if asked else Budget(),
        pipe=pipe,
        sampling=sampling,
        measuring=measuring_settings(journal, measurements, executor),
    )
    points: list[SweepPoint] = []
    record: Record | None = None
    with ready(recipe_named("auto"), options, job, calls) as complete:
        found = plans_of(complete, options, asked, None if profile is None else str(profile))
        for each in found:
            points.append(_point(each, known))
            record = each.record
            _announce(points[-1], len(points), len(asked))
    return Sweep(
        job.model,
        tuple(sorted(points, key=lambda point: (point.denoiser_bytes, point.label))),
        asked[0].act_bits,
        module_bytes(quantized_alone(denoiser)),
        None if known is None else known.milliseconds,
        record,
    )


def budget_label(budget: Budget) -> str:
    """A budget's bytes as a name of a file: `4bit`, `6MB`, `4bit-6MB`."""
    parts = [] if budget.weight_bits is None else [f"{budget.weight_bits:g}bit"]
    if budget.size is not None:
        size = budget.size
        parts.append(size.replace(" ", "") if isinstance(size, str) else f"{size}B")
    return "-".join(parts) or "any"


def labelled_budgets(
    bits: Sequence[float], sizes: Sequence[str], act_bits: float
) -> dict[str, Budget]:
    """Label → budget, of bits per weight and of sizes.

    Raises:
        BudgetError, UsageError: one of them is none.
    """
    found = [Budget(weight_bits=each, act_bits=act_bits) for each in bits]
    found += [Budget(size=each, act_bits=act_bits) for each in sizes]
    return {budget_label(each): each for each in found}


def _profile(path: Path, denoiser: nn.Module) -> Profile:
    if names := component_names(denoiser):
        raise UsageError(
            f"profile: is of one denoiser, and here is quantized {listed(names)}; leave it out"
        )
    found = Profile.load(path)
    check_profile(found, denoiser, str(path))
    return found


def _point(found: BudgetedPlan, profile: Profile | None) -> SweepPoint:
    context = found.plan.context
    return SweepPoint(
        found.budget,
        found.plan,
        found.denoiser_bytes,
        found.weight_bits,
        context.get("predicted_sqnr_db"),
        context.get("measured_sqnr_db"),
        None if profile is None else predict(profile, found.plan),
    )


def _announce(point: SweepPoint, done: int, total: int) -> None:
    tell = announcer()
    if tell is not None:
        tell(
            f"budget {done} of {total}, {point.label}: {point.denoiser_bytes:,} bytes, "
            f"{_decibels(point.measured_sqnr_db)} dB measured"
        )


def _decibels(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
