"""The main job: a float pipeline in, a quantized one out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from torch import nn

from mezzotint._files import JsonFile
from mezzotint._journal import Record
from mezzotint._progress import track
from mezzotint._tensor_digests import verification
from mezzotint.calibration import check_attention, needs_calibration
from mezzotint.checkpoint import MEASUREMENTS_FILE, mark_quantized, save_pipeline
from mezzotint.checkpoint.streaming import load_streamed
from mezzotint.engines import check_engine, engine_of, with_engine
from mezzotint.errors import PlanError, UsageError
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
    check_module,
    find_denoiser,
    load_pipeline,
    model_name,
    note_source_dtypes,
    with_generation_defaults,
)
from mezzotint.plan import ONLY_IN_CHECKPOINT, TRAINED, Budget, Plan, uniform_plan
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
    pack_module,
    packed_copy,
    quantized_html,
    quantized_line,
)


@dataclass(frozen=True)
class Result:
    """A quantized pipeline and how it came to be.

    Attributes:
        pipeline: ready to use; shares everything but the denoiser with the original.
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
        """The packed module inside the pipeline."""
        return find_denoiser(self.pipeline)[1]

    def save(self, path: str | Path) -> Path:
        """Write the pipeline to a folder that `load` and diffusers read.

        Measurements and the curve of the training go with it.

        Complete or absent: a kill in the middle leaves what was there before.
        """
        return save_pipeline(self.pipeline, path, self.record, self.training)


def load(
    source: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    engine: str = "torch",
    stream: bool = False,
    verify: bool = True,
) -> Pipeline:
    """Load a pipeline, quantized or not: embedded name, local folder or Hub id.

    Where the folder holds a `generation.json`, its values are the defaults of `pipe(prompt)`.

    Args:
        source: what to load.
        dtype: of everything that is not packed, and of what is computed.
        device: where to.
        engine: what computes the denoiser, as for `with_engine`.
        stream: leave the floating denoiser's weights in their files, for one larger than memory:
            each layer's is read when it is used, and forgotten. It is slow, and there to be
            quantized.
        verify: compare what is stored with the digests that were saved with it, and refuse NaN and
            infinity in any tensor. Off, that is taken on trust, and no time is spent on it.

    Raises:
        ModelError: there is no such pipeline, or it is incomplete.
        CheckpointError: a file is truncated, does not match its plan, or is not what was saved.
        UsageError: the engine is unknown, not installed, or does not compute there; or a denoiser
            is to be streamed that is quantized already, or computed by another engine than torch.
    """
    check_engine(engine)
    if stream and engine != "torch":
        raise UsageError(f"engine: {engine} compiles the whole denoiser; leave it or stream out")
    loader = load_streamed if stream else load_pipeline
    with verification(verify):
        pipe = with_generation_defaults(loader(source, dtype=dtype, device=device))
    return pipe if engine == "torch" else with_engine(pipe, engine)


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
) -> Result:
    """Find a plan for the pipeline's denoiser with a recipe, and pack it.

    The pipeline itself is left as it is.

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

    Raises:
        ExecutorError: the executor cannot be reached, or its workers die again and again.
        UsageError: an argument is of another kind, and the message has the right call; unknown
            recipe or executor, or a latency for a recipe that does not keep to one; the pipeline
            is quantized already, or has an adapter loaded.
        InfeasibleBudgetError: naming the nearest feasible budget.
        CalibrationError: weights or outputs hold NaN; the layer is named.
        JournalError: the journal or the measurements are of another model or other calls.
    """
    check_quantize(pipe, recipe, budget, sampling)
    job = Job(
        denoiser=float_denoiser(pipe),
        model=model_name(pipe),
        budget=budget or Budget(),
        pipe=pipe,
        sampling=sampling,
        measuring=measuring_settings(journal, measurements, executor),
    )
    outcome = run_recipe(recipe, job, calls)
    result = apply(pipe, outcome.plan, outcome.calibration)
    return replace(
        result,
        measurements=outcome.measurements,
        record=outcome.record,
        training=outcome.training,
    )


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
    """Pack the pipeline's denoiser after a plan, made here or edited by hand.

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
        UsageError: it has attention simulated whose operands cannot be rounded.
    """
    check_apply(pipe, plan, sampling)
    denoiser = float_denoiser(pipe)
    if calibration is None and plan.trained:
        raise PlanError(f"layer {plan.trained[0]}: rounding {TRAINED!r}: {ONLY_IN_CHECKPOINT}")
    if plan.simulated_attention is not None:
        check_attention(denoiser, plan.simulated_attention)
    if calibration is None and needs_calibration(plan):
        check_plan(denoiser, plan)
        plan, calibration = calibrate_plan(pipe, denoiser, plan, sampling)
    names = iter(track(plan.quantized, "Packing"))
    packed = packed_copy(denoiser, plan, calibration, progress=lambda name: next(names, None))
    mark_quantized(packed, plan)
    return Result(with_denoiser(pipe, packed), plan)


def quantize_denoiser(
    module: nn.Module, *, weight_bits: int = 8, act_bits: int = 16, exclude: tuple[str, ...] = ()
) -> nn.Module:
    """Pack every Linear and Conv2d of a bare module alike, in place; no pipeline or data needed.

    Args:
        module: a denoiser, or any module of Linear and Conv2d layers.
        weight_bits: 1–8, symmetric, one scale per output channel.
        act_bits: 8 for int8 activations per token, 16 for none.
        exclude: layers to keep floating: dotted names, globs, or `re:` expressions.

    Raises:
        UsageError: a width is out of its domain, or a pattern names no layer; the module is
            quantized already, or has an adapter loaded.
    """
    check_module(module)
    check_floating(type(module).__name__, module)
    plan = uniform_plan(module, weight_bits=weight_bits, act_bits=act_bits, exclude=exclude)
    pack_module(module, plan)
    if hasattr(module, "register_to_config"):
        mark_quantized(module, plan)
    return module


def float_denoiser(pipe: DiffusionPipeline) -> nn.Module:
    """The pipeline's denoiser, noted in which dtypes it was stored.

    Raises:
        UsageError: it is quantized already, has an adapter loaded, or is compiled by an engine.
    """
    component, denoiser = find_denoiser(pipe)
    engine = engine_of(denoiser).name
    if engine != "torch":
        raise UsageError(
            f"the pipeline's {component} is compiled by {engine}, which hides its layers; "
            'quantize with_engine(pipe, "torch"), and choose the engine afterwards'
        )
    check_floating(component, denoiser)
    note_source_dtypes(pipe)
    return denoiser
