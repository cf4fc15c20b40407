"""What every recipe is given, and the registry of recipes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from torch import nn

from mezzotint._plugins import load_plugins
from mezzotint.errors import UsageError
from mezzotint.models import Sampling
from mezzotint.plan import Budget, Plan
from mezzotint.recipes.prompts import CALIBRATION_COUNT
from mezzotint.runtime import Calibration
from mezzotint.sensitivity import Measurements


@dataclass(frozen=True)
class Job:
    """One pipeline to quantize.

    Attributes:
        pipe: the floating-point pipeline.
        denoiser: the component of it that is quantized.
        model: what the user calls it.
        budget: what the plan may cost.
        sampling: calibration prompts and seeds.
        journal: where finished measurements are kept, if anywhere.
    """

    pipe: DiffusionPipeline
    denoiser: nn.Module
    model: str
    budget: Budget
    sampling: Sampling
    journal: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What a recipe decides: the plan, what it calibrated for it, and what it measured."""

    plan: Plan
    calibration: Calibration
    measurements: Measurements = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A named way from pipeline to plan.

    Attributes:
        options: its configuration dataclass; a field `calibration_prompts` of it, where there is
            one, says how many prompts to take where none are given.
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
    """Decorator: make `run(job, options)` known under `name`."""

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


def recipes() -> tuple[Recipe, ...]:
    """Every registered recipe, by name."""
    load_plugins("recipes")
    return tuple(_RECIPES[name] for name in sorted(_RECIPES))
