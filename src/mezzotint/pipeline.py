"""The main job: a float pipeline in, a quantized one out."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn

from mezzotint._progress import track
from mezzotint.calibration import needs_calibration
from mezzotint.engines import check_engine, engine_of, with_engine
from mezzotint.errors import PlanError, UsageError
from mezzotint.hub import mark_quantized, save_pipeline
from mezzotint.models import (
    Sampling,
    check_no_adapters,
    find_denoiser,
    load_pipeline,
    with_generation_defaults,
)
from mezzotint.plan import ONLY_IN_CHECKPOINT, TRAINED, Budget, Plan, uniform_plan
from mezzotint.recipes import Job, recipe_named, recipes
from mezzotint.recipes.plan_calibration import calibrate_plan
from mezzotint.recipes.prompts import default_sampling
from mezzotint.runtime import Calibration, check_plan, packed_copy, packed_layers, quantize_module
from mezzotint.sensitivity import Measurements


@dataclass(frozen=True)
class Result:
    """A quantized pipeline and how it came to be.

    Attributes:
        pipeline: ready to use; shares everything but the denoiser with the original.
        plan: the choice of every layer.
        measurements: what the recipe measured, layer by layer.
    """

    pipeline: DiffusionPipeline
    plan: Plan
    measurements: Measurements = field(default_factory=dict)

    @property
    def denoiser(self) -> nn.Module:
        """The packed module inside the pipeline."""
        return find_denoiser(self.pipeline)[1]

    def save(self, path: str | Path) -> Path:
        """Write the pipeline to a folder that `load` and diffusers read.

        Complete or absent: a kill in the middle leaves what was there before.
        """
        rows: dict[str, Any] = {
            layer: {str(choice): score.figures() for choice, score in scores.items()}
            for layer, scores in self.measurements.items()
        }
        return save_pipeline(self.pipeline, path, rows)


def load(
    source: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    engine: str = "torch",
) -> DiffusionPipeline:
    """Load a pipeline, quantized or not: embedded name, local folder or Hub id.

    Where the folder holds a `generation.json`, its values are the defaults of `pipe(prompt)`.

    Args:
        source: what to load.
        dtype: of everything that is not packed, and of what is computed.
        device: where to.
        engine: what computes the denoiser, as for `with_engine`.

    Raises:
        ModelError: there is no such pipeline, or it is incomplete.
        CheckpointError: a file is truncated, or does not match its plan.
        UsageError: the engine is unknown, not installed, or does not compute there.
    """
    check_engine(engine)
    pipe = with_generation_defaults(load_pipeline(source, dtype=dtype, device=device))
    return pipe if engine == "torch" else with_engine(pipe, engine)


def quantize(
    pipe: DiffusionPipeline,
    recipe: str = "auto",
    budget: Budget | None = None,
    *,
    sampling: Sampling | None = None,
    options: Any = None,
    journal: str | Path | None = None,
) -> Result:
    """Find a plan for the pipeline's denoiser with a recipe, and pack it.

    The pipeline itself is left as it is.

    Args:
        pipe: a floating-point text-to-image pipeline.
        recipe: name of a registered recipe.
        budget: what the plan may cost; by default 4-bit weights and 8-bit activations.
        sampling: calibration prompts, seed and steps; by default prompts that come with the
            model, or general ones.
        options: the recipe's configuration dataclass; by default its defaults.
        journal: file for finished measurements, so that an interrupted run can resume.

    Raises:
        UsageError: unknown recipe, options of another recipe, or a latency for a recipe that
            does not keep to one.
        InfeasibleBudgetError: naming the nearest feasible budget.
        CalibrationError: weights or outputs hold NaN; the layer is named.
    """
    chosen = recipe_named(recipe)
    options = chosen.options() if options is None else options
    if not isinstance(options, chosen.options):
        raise UsageError(
            f"options: recipe {recipe!r} takes {chosen.options.__name__}, "
            f"not {type(options).__name__}"
        )
    budget = budget or Budget()
    if budget.latency is not None and not chosen.takes_latency:
        able = ", ".join(each.name for each in recipes() if each.takes_latency)
        raise UsageError(
            f"latency: recipe {recipe!r} cannot keep to one, since it does not decide all layers' "
            f"weights and inputs in one program; leave it out, or use recipe {able}"
        )
    job = Job(
        pipe=pipe,
        denoiser=_float_denoiser(pipe),
        model=model_name(pipe),
        budget=budget,
        sampling=sampling or default_sampling(pipe, chosen.prompts(options)),
        journal=None if journal is None else Path(journal),
    )
    outcome = chosen.run(job, options)
    return apply(pipe, outcome.plan, outcome.calibration, outcome.measurements)


def apply(
    pipe: DiffusionPipeline,
    plan: Plan,
    calibration: Calibration | None = None,
    measurements: Measurements | None = None,
    *,
    sampling: Sampling | None = None,
) -> Result:
    """Pack the pipeline's denoiser after a plan, made here or edited by hand.

    Args:
        pipe: a floating-point text-to-image pipeline.
        plan: what every layer takes.
        calibration: what was calibrated for it. By default constant tokens and static ranges,
            where the plan has any, are calibrated here.
        measurements: what is known of its layers.
        sampling: prompts, seed and steps for that; by default those that the plan was calibrated
            with, or else those of `quantize`. The result's plan names them.

    Raises:
        PlanError: the plan names an unknown or unsupported layer, has a first token for constant
            that is not, or weights that stand in their checkpoint only.
        CalibrationError: the calls that the plan was calibrated on cannot be made again.
    """
    component, _ = find_denoiser(pipe)
    denoiser = _float_denoiser(pipe)
    if calibration is None and plan.trained:
        raise PlanError(f"layer {plan.trained[0]}: rounding {TRAINED!r}: {ONLY_IN_CHECKPOINT}")
    if calibration is None and needs_calibration(plan):
        check_plan(denoiser, plan)
        plan, calibration = calibrate_plan(pipe, denoiser, plan, sampling)
    names = iter(track(plan.quantized, "Packing"))
    packed = packed_copy(denoiser, plan, calibration, progress=lambda name: next(names, None))
    mark_quantized(packed, plan)
    quantized = copy.copy(pipe)
    setattr(quantized, component, packed)
    return Result(quantized, plan, measurements or {})


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
        UsageError: a width is out of its domain, or a pattern names no layer.
    """
    plan = uniform_plan(module, weight_bits=weight_bits, act_bits=act_bits, exclude=exclude)
    quantize_module(module, plan)
    if hasattr(module, "register_to_config"):
        mark_quantized(module, plan)
    return module


def model_name(pipe: DiffusionPipeline) -> str:
    """Name of a pipeline in plans and reports: the last part of its source."""
    return Path(pipe.name_or_path).name if pipe.name_or_path else type(pipe).__name__


def _float_denoiser(pipe: DiffusionPipeline) -> nn.Module:
    component, denoiser = find_denoiser(pipe)
    engine = engine_of(denoiser).name
    if engine != "torch":
        raise UsageError(
            f"the pipeline's {component} is compiled by {engine}, which hides its layers; "
            'quantize with_engine(pipe, "torch"), and choose the engine afterwards'
        )
    if packed_layers(denoiser):
        raise UsageError(
            f"the pipeline's {component} is quantized already; start from the original"
        )
    check_no_adapters(component, denoiser)
    return denoiser
