"""The main job: a float pipeline in, a quantized one out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from diffusers import DiffusionPipeline
from torch import nn

from mezzotint._files import JsonFile
from mezzotint._journal import Record
from mezzotint._progress import track
from mezzotint.calibration import check_attention, needs_calibration
from mezzotint.checkpoint import MEASUREMENTS_FILE, mark_quantized, save_pipeline
from mezzotint.engines import engine_of
from mezzotint.errors import InfeasibleBudgetError, PlanError, UsageError
from mezzotint.evaluation import CallTimes
from mezzotint.measuring import (
    ExecutorFactory,
    Measurements,
    chosen_executor,
    with_denoiser,
)
from mezzotint.models import (
    Example,
    Pipeline,
    Sampling,
    check_loras,
    denoising_module,
    find_denoiser,
    merged_loras,
    model_name,
    note_source_dtypes,
    parts_of,
    quantized_alone,
    quantized_parts,
)
from mezzotint.plan import (
    ONLY_IN_CHECKPOINT,
    TRAINED,
    Budget,
    Plan,
    component_plan,
)
from mezzotint.recipes import (
    Job,
    MeasuringSettings,
    RecipeName,
    RecipeOptions,
    check_floating,
    run_recipe,
)
from mezzotint.recipes.given import check_apply, check_quantize
from mezzotint.recipes.plan_calibration import calibrate_plan
from mezzotint.runtime import (
    Calibration,
    check_plan,
    module_bytes,
    packed_copy,
    quantized_html,
    quantized_line,
)
from mezzotint.speed import speed


@dataclass(frozen=True)
class Result:
    """A quantized pipeline and how it came to be.

    Attributes:
        pipeline: ready to use; shares everything but what is quantized with the original.
        plan: the choice of every layer.
        measurements: figures of candidates, measured or predicted, by layer and choice.
        record: all that was measured, for other budgets.
        training: curve of the training, where there was any.
    """

    pipeline: Pipeline
    plan: Plan
    measurements: Measurements = field(default_factory=dict)
    record: Record | None = None
    training: JsonFile | None = None

    def __repr__(self) -> str:
        return quantized_line("Result", self.plan, self.denoiser)

    def _repr_html_(self) -> str:
        return quantized_html(repr(self), self.plan)

    @property
    def denoiser(self) -> nn.Module:
        """The packed module inside the pipeline; of several components a joint module."""
        return quantized_alone(denoising_module(self.pipeline, self.plan.components or None))

    def speed(self, original: DiffusionPipeline | None = None) -> CallTimes:
        """Times of a call here, as `mezzotint.speed.speed`; `verdict` says which engine suits."""
        return speed(self.pipeline, original=original)

    def save(self, path: str | Path) -> Path:
        """Write the pipeline to a folder that `load` and diffusers read.

        Measurements and the curve of the training go with it.

        Complete or absent: a kill in the middle leaves what was there before.
        """
        return save_pipeline(self.pipeline, path, self.record, self.training)


def quantize(  # noqa: PLR0913  (all but three are keywords)
    pipe: DiffusionPipeline,
    recipe: RecipeName | RecipeOptions = "auto",
    budget: Budget | None = None,
    *,
    sampling: Sampling | None = None,
    calls: Iterable[Example] | None = None,
    journal: str | Path | None = None,
    measurements: str | Path | None = None,
    executor: str | ExecutorFactory | None = None,
    components: Sequence[str] | None = None,
) -> Result:
    """Find a plan for the pipeline's denoiser with a recipe, and pack it.

    The pipeline itself is left as it is. Several denoisers, such as the two transformers of
    Wan 2.2, share one budget; so do other components that are named.

    Args:
        pipe: a floating-point pipeline; text-to-image, unless `calls` are given.
        recipe: a recipe's options, such as `MixDQ(bos=False)`, or its name, for its defaults.
        budget: what the plan may cost; by default 4-bit weights and 8-bit activations.
        sampling: calibration prompts, seed and steps; by default prompts that come with the
            model, or general ones.
        calls: calls of the denoiser, as `recording` gives them, for pipelines that need more than
            a prompt; by default the pipeline is run on `sampling` for them. Images, where a recipe
            compares some, are those of `sampling` in any case.
        journal: file for finished measurements, so that an interrupted run can resume; where the
            recipe trains, its states are kept in a folder beside it (`owl.training` beside
            `owl.journal.jsonl`).
        measurements: folder of an earlier result of the same model and calls, or a journal: what
            is found there is not measured again.
        executor: name of what runs the measurements, such as `ray`, or makes that, given the
            floating model; by default this process does, one after another.
        components: names of what is quantized: denoisers, text encoders and autoencoders, whose
            decoder is; by default all denoisers of the pipeline.

    Raises:
        ExecutorError: the executor cannot be reached, or its workers die again and again.
        UsageError: an argument is of another kind, and the message has the right call; unknown
            recipe, executor or component, or a latency for a recipe that does not keep to one; the
            pipeline is quantized already, or has an adapter loaded.
        InfeasibleBudgetError: naming the nearest feasible budget.
        CalibrationError: weights or outputs hold NaN; the layer is named.
        JournalError: the journal or the measurements are of another model or other calls.
    """
    check_quantize(pipe, recipe, budget, sampling)
    denoiser = float_denoiser(pipe, components)
    others = bytes_of_others(pipe, denoiser)
    job = Job(
        denoiser=denoiser,
        model=model_name(pipe),
        budget=(budget or Budget()).beside(others),
        pipe=pipe,
        sampling=sampling,
        measuring=measuring_settings(journal, measurements, executor),
    )
    try:
        outcome = run_recipe(recipe, job, calls)
    except InfeasibleBudgetError as cause:
        if budget is None or budget.pipeline_size is None:
            raise
        raise InfeasibleBudgetError(
            f"pipeline_size {budget.pipeline_size}, of which models that are not quantized take "
            f"{others:,} bytes: {cause}"
        ) from cause
    result = apply(pipe, outcome.plan, outcome.calibration)
    return replace(
        result,
        measurements=outcome.measurements,
        record=outcome.record,
        training=outcome.training,
    )


def bytes_of_others(pipe: DiffusionPipeline, denoiser: nn.Module) -> int:
    """Stored bytes of the pipeline's models that are not quantized.

    Args:
        pipe: the pipeline.
        denoiser: what is quantized of it, as `float_denoiser` gives it.
    """
    quantized = [id(part) for part in quantized_parts(denoiser).values()]
    parts = {id(part): part for part in pipe.components.values() if isinstance(part, nn.Module)}
    return sum(module_bytes(part) for key, part in parts.items() if key not in quantized)


def measuring_settings(
    journal: str | Path | None,
    measurements: str | Path | None,
    executor: str | ExecutorFactory | None,
) -> MeasuringSettings:
    """The files of measurements that a user names, and what runs those that are missing.

    Raises:
        JournalError: the earlier measurements are missing or damaged.
        UsageError, ExecutorError: as `executor_named`.
    """
    known = None
    if measurements is not None:
        path = Path(measurements)
        path = path / MEASUREMENTS_FILE if path.is_dir() else path
        known = (path, Record.read(path))
    return MeasuringSettings(
        None if journal is None else Path(journal), known, chosen_executor(executor)
    )


def apply(
    pipe: DiffusionPipeline,
    plan: Plan,
    calibration: Calibration | None = None,
    *,
    sampling: Sampling | None = None,
) -> Result:
    """Pack the pipeline's denoiser, or several components, after a plan, edited by hand or not.

    Args:
        pipe: a floating-point text-to-image pipeline.
        plan: what every layer takes.
        calibration: what was calibrated for it. By default constant tokens and static ranges,
            where the plan has any, are calibrated here.
        sampling: prompts, seed and steps for that; by default those that the plan was calibrated
            with, or else those of `quantize`. The result's plan names them.

    Raises:
        PlanError: the plan names an unknown or unsupported layer, has a first token for constant
            that is not, or weights that stand in their checkpoint only.
        CalibrationError: the calls that the plan was calibrated on cannot be made again.
        UsageError: it has attention simulated whose operands cannot be rounded, or was made with
            LoRAs merged that the pipeline has not.
    """
    check_apply(pipe, plan, sampling)
    denoiser = float_denoiser(pipe, plan.components or None)
    if calibration is None and plan.trained:
        raise PlanError(f"layer {plan.trained[0]}: rounding {TRAINED!r}: {ONLY_IN_CHECKPOINT}")
    if plan.simulated_attention is not None:
        check_attention(denoiser, plan.simulated_attention)
    if calibration is None and needs_calibration(plan):
        check_plan(denoiser, plan)
        plan, calibration = calibrate_plan(pipe, denoiser, plan, sampling)
    check_loras(plan, merged_loras(pipe))
    plan = _naming_loras(plan, pipe)
    names = iter(track(plan.quantized, "Packing"))
    packed = packed_copy(
        quantized_alone(denoiser), plan, calibration, progress=lambda name: next(names, None)
    )
    for component, part in parts_of(packed).items():
        own = plan if component is None else component_plan(plan, component)
        if own.quantized or component is None:
            mark_quantized(part, own)
    return Result(with_denoiser(pipe, packed), plan)


def _naming_loras(plan: Plan, pipe: DiffusionPipeline) -> Plan:
    """The plan, its context naming what was merged into the weights that it is applied to."""
    merged = [dict(each) for each in merged_loras(pipe)]
    if merged == plan.context.get("loras", []):
        return plan
    context = {name: value for name, value in plan.context.items() if name != "loras"}
    return replace(plan, context=context | ({"loras": merged} if merged else {}))


def float_denoiser(pipe: DiffusionPipeline, components: Sequence[str] | None = None) -> nn.Module:
    """The pipeline's denoiser, or several components, noted in which dtypes they were stored.

    Args:
        pipe: the pipeline.
        components: names of what is wanted; by default all denoisers.

    Raises:
        ModelError: the pipeline has no denoiser.
        UsageError: a component is unknown, is quantized already, has an adapter loaded, or is
            compiled by an engine.
    """
    found = denoising_module(pipe, components)
    for name, part in parts_of(found).items():
        component = name or find_denoiser(pipe)[0]
        engine = engine_of(part).name
        if engine != "torch":
            raise UsageError(
                f"the pipeline's {component} is compiled by {engine}, which hides its layers; "
                'quantize with_engine(pipe, "torch"), and choose the engine afterwards'
            )
        check_floating(component, part)
    note_source_dtypes(pipe)
    return found
