"""Jobs that recipes are given, outcomes that they give back, and the registry of recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import Field, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from diffusers import DiffusionPipeline
from torch import nn

from mezzotint._files import JsonFile
from mezzotint._journal import Record
from mezzotint._plugins import Registry
from mezzotint._words import listed
from mezzotint.errors import UsageError
from mezzotint.measuring import ExecutorFactory, InProcess, Measurements
from mezzotint.models import (
    Call,
    Example,
    Joint,
    Sampling,
    check_no_adapters,
    completed_calls,
    component_names,
    evaluating,
)
from mezzotint.models.offloading import check_not_offloaded
from mezzotint.plan import Budget, Plan
from mezzotint.recipes.default_prompts import default_sampling, usual_count
from mezzotint.runtime import Calibration, packed_layers


@dataclass(frozen=True)
class MeasuringSettings:
    """Sources and sinks of measurements: a journal, an earlier record, an executor.

    Attributes:
        journal: file for finished measurements, so that an interrupted run can resume; the states
            of a training are kept beside it.
        known: measurements of an earlier run, with the file that they were read from.
        executor: runs the measurements; None for this process.
    """

    journal: Path | None = None
    known: tuple[Path, Record] | None = None
    executor: ExecutorFactory | None = None

    @property
    def training(self) -> Path | None:
        """Folder for the states of a training; None where there is no journal either."""
        return None if self.journal is None else training_folder(self.journal)


def training_folder(journal: Path) -> Path:
    """The folder beside a journal: `owl.training` for `owl.journal.jsonl`."""
    name = journal.name.removesuffix(".jsonl").removesuffix(".journal")
    return journal.with_name(f"{name}.training")


@dataclass(frozen=True)
class Job:
    """One denoiser to quantize, or several components of a pipeline.

    Attributes:
        denoiser: the floating module that is quantized; joint of several components.
        model: what the user calls it.
        budget: what the plan may cost.
        pipe: the pipeline around it; None for a bare module.
        sampling: calibration prompts and seeds of the pipeline; `run_recipe` has a default.
        calls: recorded calls of the denoiser; by default the pipeline is run for them.
        measuring: journal, earlier measurements and executor.
    """

    denoiser: nn.Module
    model: str
    budget: Budget
    pipe: DiffusionPipeline | None = None
    sampling: Sampling | None = None
    calls: tuple[Call, ...] | None = None
    measuring: MeasuringSettings = MeasuringSettings()


@dataclass(frozen=True)
class Outcome:
    """Decisions of a recipe.

    Attributes:
        plan: what every layer takes, and how it was calibrated.
        calibration: what was calibrated for it.
        measurements: figures of candidates, measured or predicted, by layer and choice.
        record: all of the journal, for other budgets.
        training: curve of the training that the plan's trained weights come from.
    """

    plan: Plan
    calibration: Calibration
    measurements: Measurements = field(default_factory=dict)
    record: Record | None = None
    training: JsonFile | None = None


class RecipeOptions(Protocol):
    """Options of a recipe: a frozen dataclass, whose type stands for the recipe."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


@dataclass(frozen=True)
class Recipe:
    """A named way from pipeline to plan.

    Attributes:
        options: its configuration dataclass, which also stands for the recipe; a field
            `calibration_prompts` of it, where there is one, says how many prompts to take where
            none are given; None for the usual number.
        run: what it does.
        takes_latency: whether it keeps to a budget's latency, and looks for its quality.
        takes_components: whether it decides several components of a pipeline together.
    """

    name: str
    summary: str
    options: type[RecipeOptions]
    run: Callable[[Job, Any], Outcome]
    takes_latency: bool = False
    takes_components: bool = False

    def prompts(self, options: RecipeOptions, pipe: DiffusionPipeline) -> int:
        """Calibration prompts wanted under these options."""
        wanted = getattr(options, "calibration_prompts", None)
        return usual_count(pipe) if wanted is None else int(wanted)


_RECIPES: Registry[Recipe] = Registry("recipes", "recipe")


def register_recipe(
    name: str,
    summary: str,
    options: type[RecipeOptions],
    *,
    takes_latency: bool = False,
    takes_components: bool = False,
) -> Callable[[Callable[[Job, Any], Outcome]], Callable[[Job, Any], Outcome]]:
    """Decorator: make `run(job, options)` known under `name`, and by its type of options.

    Raises:
        UsageError: there is a recipe of that name.
    """

    def register(run: Callable[[Job, Any], Outcome]) -> Callable[[Job, Any], Outcome]:
        found = Recipe(name, summary, options, run, takes_latency, takes_components)
        _RECIPES.add(name, found, run)
        return run

    return register


def recipe_named(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:
        UsageError: there is none; the message lists them.
    """
    return _RECIPES.named(name)


def chosen_recipe(recipe: str | RecipeOptions) -> tuple[Recipe, RecipeOptions]:
    """The recipe and its options, of a name or of options.

    Raises:
        UsageError: there is no such recipe, or the options are no recipe's.
    """
    if isinstance(recipe, str):
        found = recipe_named(recipe)
        return found, found.options()
    for found in _RECIPES.items.values():
        if type(recipe) is found.options:
            return found, recipe
    known = ", ".join(f"{each.options.__name__} or {each.name!r}" for each in recipes())
    raise UsageError(f"recipe: is a {type(recipe).__name__}; give one of: {known}")


def recipes() -> tuple[Recipe, ...]:
    """Every registered recipe, by name."""
    return tuple(sorted(_RECIPES.all(), key=lambda recipe: recipe.name))


def run_recipe(
    recipe: str | RecipeOptions, job: Job, calls: Iterable[Example] | None = None
) -> Outcome:
    """Check what is asked for, then run the recipe.

    Args:
        recipe: its options, or its name, for its defaults.
        job: without calls. Where a pipeline has no sampling, the recipe's default is taken.
        calls: calls of the denoiser, or pairs of arguments, in the place of the pipeline's own.

    Raises:
        UsageError: unknown recipe; a latency for a recipe that does not keep to one; the denoiser
            is quantized already, or has an adapter loaded; the calls are none.
    """
    chosen, options = chosen_recipe(recipe)
    with ready(chosen, options, job, calls) as complete:
        return chosen.run(complete, options)


@contextmanager
def ready(
    recipe: Recipe, options: RecipeOptions, job: Job, calls: Iterable[Example] | None = None
) -> Iterator[Job]:
    """The job as a recipe takes it: checked, with sampling and calls; arguments as `run_recipe`.

    Raises:
        UsageError: as `run_recipe`.
    """
    check_latency(recipe, job.budget)
    check_components(recipe, job, calls=calls is not None)
    check_floating(job.model, job.denoiser)
    # Measured is the model that makes images: no dropout, and nothing learned from the calls.
    with evaluating(job.denoiser):
        if job.pipe is not None and job.sampling is None:
            job = replace(
                job, sampling=default_sampling(job.pipe, recipe.prompts(options, job.pipe))
            )
        if calls is not None:
            job = replace(job, calls=completed_calls(job.denoiser, calls))
        yield job


def check_floating(name: str, denoiser: nn.Module) -> None:
    """Refuse a module whose layers are not the plain floating ones that plans are about.

    Args:
        name: of the module, for the message.
        denoiser: the module.

    Raises:
        UsageError: a layer is packed, or has an adapter; or weights are offloaded.
    """
    if packed_layers(denoiser):
        raise UsageError(f"{name} is quantized already; start from the original")
    check_no_adapters(name, denoiser)
    check_not_offloaded(name, denoiser)


def check_components(recipe: Recipe, job: Job, *, calls: bool) -> None:
    """Raise UsageError where a joint module of several components cannot be quantized so."""
    names = component_names(job.denoiser)
    if not names:
        return
    if not recipe.takes_components:
        able = ", ".join(each.name for each in recipes() if each.takes_components)
        raise UsageError(
            f"recipe {recipe.name!r} cannot decide {listed(names)} together; use recipe {able}, or "
            "quantize each by itself with quantize_module"
        )
    if job.budget.latency is not None:
        raise UsageError(
            f"latency: is that of one denoiser, and {listed(names)} are quantized together; give "
            "bits or a size"
        )
    if isinstance(job.denoiser, Joint) and (job.denoiser.texts or job.denoiser.decoders) and calls:
        raise UsageError(
            "calls: are of denoisers, and text encoders and decoders are recorded with the "
            "pipeline's own prompts; leave them out"
        )
    executor = job.measuring.executor
    if executor is not None and executor is not InProcess:
        raise UsageError(
            f"executor: {listed(names)} are measured together in this process only; leave it out"
        )


def check_latency(recipe: Recipe, budget: Budget) -> None:
    """Raise UsageError where the budget has a latency or quality that the recipe has no way to."""
    if recipe.takes_latency:
        return
    able = ", ".join(each.name for each in recipes() if each.takes_latency)
    for name, value in (("latency", budget.latency), ("quality", budget.quality)):
        if value is not None:
            raise UsageError(
                f"{name}: recipe {recipe.name!r} cannot keep to one, since it does not decide all "
                f"layers' weights and inputs in one program; leave it out, or use recipe {able}"
            )
