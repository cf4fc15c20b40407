"""The main job: a float pipeline in, a quantized one out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from torch import nn

from mezzotint._files import JsonFile, at_home
from mezzotint._journal import Record
from mezzotint._progress import track
from mezzotint._tensor_digests import verification
from mezzotint.calibration import check_attention, needs_calibration
from mezzotint.checkpoint import MEASUREMENTS_FILE, is_savable, mark_quantized, save_pipeline
from mezzotint.checkpoint.streaming import load_streamed
from mezzotint.engines import check_engine, engine_of, with_engine
from mezzotint.errors import InfeasibleBudgetError, PlanError, UsageError
from mezzotint.measuring import (
    ExecutorFactory,
    Measurements,
    chosen_executor,
    with_denoiser,
)
from mezzotint.models import (
    Example,
    LoraName,
    Pipeline,
    Sampling,
    SourceOptions,
    check_loras,
    check_module,
    denoising_module,
    find_denoiser,
    load_pipeline,
    lora_files,
    merge_loras,
    merged_loras,
    model_name,
    note_source_dtypes,
    parts_of,
    quantized_alone,
    quantized_parts,
    with_generation_defaults,
)
from mezzotint.plan import (
    ONLY_IN_CHECKPOINT,
    TRAINED,
    Budget,
    Plan,
    component_plan,
    uniform_plan,
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
    pack_module,
    packed_copy,
    quantized_html,
    quantized_line,
)


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

    def save(self, path: str | Path) -> Path:
        """Write the pipeline to a folder that `load` and diffusers read.

        Measurements and the curve of the training go with it.

        Complete or absent: a kill in the middle leaves what was there before.
        """
        return save_pipeline(self.pipeline, path, self.record, self.training)


def load(  # noqa: PLR0913  (all but one are keywords)
    source: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    revision: str | None = None,
    variant: str | None = None,
    token: str | None = None,
    config: str | Path | None = None,
    lora: LoraName | Sequence[LoraName] | None = None,
    engine: str = "torch",
    stream: bool = False,
    verify: bool = True,
) -> Pipeline:
    """Load a pipeline, quantized or not: embedded name, local folder, single file or Hub id.

    Where the folder holds a `generation.json`, its values are the defaults of `pipe(prompt)`.

    Args:
        source: what to load. A single file is of safetensors, in its authors' layout.
        dtype: of everything that is not packed, and of what is computed; by default the
            checkpoint's own, on processors float32 in the place of float16.
        device: where to.
        revision: branch, tag or commit of a repository of the Hub.
        variant: part of the names of weights' files, such as `fp16`.
        token: for a repository that is not public; by default the stored login.
        config: folder of a diffusers pipeline that a single file is read by; what the file does
            not hold is taken from there. By default diffusers' own choice, from the Hub.
        lora: safetensors files of LoRAs, merged into the weights; `FILE:0.8` merges one by that
            factor. A plan names them.
        engine: what computes the denoiser, as for `with_engine`.
        stream: leave the floating denoiser's weights in their files, for one larger than memory:
            each layer's is read when it is used, and forgotten. It is slow, and there to be
            quantized.
        verify: compare what is stored with the digests that were saved with it, and refuse NaN and
            infinity in any tensor. Off, that is taken on trust, and no time is spent on it.

    Raises:
        ModelError: there is no such pipeline, or it is incomplete.
        CheckpointError: a file is truncated, does not match its plan, or is not what was saved.
        UsageError: the engine is unknown, not installed, or does not compute there; a denoiser
            is to be streamed that is quantized already, or computed by another engine than torch;
            or a LoRA is to be merged into one that is packed or streamed.
    """
    check_engine(engine)
    if stream and engine != "torch":
        raise UsageError(f"engine: {engine} compiles the whole denoiser; leave it or stream out")
    loras = lora_files(lora)
    if stream and loras:
        raise UsageError("lora: is merged in memory; leave it or stream out")
    options = SourceOptions(revision, variant, token, None if config is None else at_home(config))
    loader = load_streamed if stream else load_pipeline
    with verification(verify):
        pipe = loader(source, dtype=dtype, device=device, options=options)
    if loras:
        for name, part in pipe.components.items():
            if isinstance(part, nn.Module):
                check_floating(name, part)
        merge_loras(pipe, loras)
    pipe = with_generation_defaults(pipe)
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
    if is_savable(module):
        mark_quantized(module, plan)
    return module


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
