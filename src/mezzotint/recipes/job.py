"""Jobs that recipes are given, outcomes that they give back, and the registry of recipes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from torch import nn

from mezzotint._journal import Record
from mezzotint._plugins import load_plugins
from mezzotint.errors import UsageError
from mezzotint.measuring import ExecutorFactory, Measurements
from mezzotint.models import Call, Sampling
from mezzotint.plan import Budget, Plan
from mezzotint.recipes.default_prompts import CALIBRATION_COUNT
from mezzotint.runtime import Calibration


@dataclass(frozen=True)
class Keeping:
    """Sources and sinks of measurements: a journal, an earlier record, an executor.

    Attributes:
        journal: file for finished measurements, so that an interrupted run can resume.
        known: measurements of an earlier run, with the file that they were read from.
        executor: runs the measurements; None for this process.
    """

    journal: Path | None = None
    known: tuple[Path, Record] | None = None
    executor: ExecutorFactory | None = None


@dataclass(frozen=True)
class Job:
    """One denoiser to quantize.

    Attributes:
        denoiser: the floating module that is quantized.
        model: what the user calls it.
        budget: what the plan may cost.
        pipe: the pipeline around it; None for a bare module.
        sampling: calibration prompts and seeds of the pipeline.
        calls: recorded calls of the denoiser; by default the pipeline is run for them.
        keeping: journal, earlier measurements and executor.
    """

    denoiser: nn.Module
    model: str
    budget: Budget
    pipe: DiffusionPipeline | None = None
    sampling: Sampling | None = None
    calls: tuple[Call, ...] | None = None
    keeping: Keeping = Keeping()


@dataclass(frozen=True)
class Outcome:
    """Decisions of a recipe.

    Attributes:
        plan: what every layer takes, and how it was calibrated.
        calibration: what was calibrated for it.
        measurements: what was measured on the way, by layer and choice.
        record: all of the journal, for other budgets.
    """

    plan: Plan
    calibration: Calibration
    measurements: Measurements = field(default_factory=dict)
    record: Record | None = None


@dataclass(frozen=True)
class Recipe:
    """A named way from pipeline to plan.

    Attributes:
        options: its configuration dataclass, which also stands for the recipe; a field
            `calibration_prompts` of it, where there is one, says how many prompts to take where
            none are given.
        run: what it does.
        takes_latency: whether it keeps to a budget's latency.
    """

    name: str
    summary: str
    options: type[Any]
    run: Callable[[Job, Any], Outcome]
    takes_latency: bool = False

    def prompts(self, options: Any) -> int:
        """Calibration prompts wanted under these options."""
        return int(getattr(options, "calibration_prompts", CALIBRATION_COUNT))


_RECIPES: dict[str, Recipe] = {}


def register_recipe(
    name: str, summary: str, options: type[Any], *, takes_latency: bool = False
) -> Callable[[Callable[[Job, Any], Outcome]], Callable[[Job, Any], Outcome]]:
    """Decorator: make `run(job, options)` known under `name`, and by its type of options."""

    def register(run: Callable[[Job, Any], Outcome]) -> Callable[[Job, Any], Outcome]:
        _RECIPES[name] = Recipe(name, summary, options, run, takes_latency)
        return run

    return register


def recipe_named(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:
        UsageError: there is none; the message lists them.
    """
    load_plugins("recipes")
    if name not in _RECIPES:
        raise UsageError(f"unknown recipe {name!r}; there are: {', '.join(sorted(_RECIPES))}")
    return _RECIPES[name]


def chosen_recipe(recipe: Any) -> tuple[Recipe, Any]:
    """The recipe and its options, of a name or of options.

    Raises:
        UsageError: there is no such recipe, or the options are no recipe's.
    """
    if isinstance(recipe, str):
        found = recipe_named(recipe)
        return found, found.options()
    for found in _RECIPES.values():
        if type(recipe) is found.options:
            return found, recipe
    known = ", ".join(f"{each.options.__name__} or {each.name!r}" for each in recipes())
    raise UsageError(f"recipe: is a {type(recipe).__name__}; give one of: {known}")


def recipes() -> tuple[Recipe, ...]:
    """Every registered recipe, by name."""
    load_plugins("recipes")
    return tuple(_RECIPES[name] for name in sorted(_RECIPES))


def check_latency(recipe: Recipe, budget: Budget) -> None:
    """Raise UsageError where the budget has a latency that the recipe cannot keep to."""
    if budget.latency is None or recipe.takes_latency:
        return
    able = ", ".join(each.name for each in recipes() if each.takes_latency)
    raise UsageError(
        f"latency: recipe {recipe.name!r} cannot keep to one, since it does not decide all layers' "
        f"weights and inputs in one program; leave it out, or use recipe {able}"
    )
