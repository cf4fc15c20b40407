"""Quantized modules without a pipeline: measured on example inputs, or all layers alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from mezzotint._journal import Record
from mezzotint.checkpoint import is_savable, mark_quantized
from mezzotint.errors import UsageError
from mezzotint.measuring import ExecutorFactory, Measurements
from mezzotint.models import Example, check_module
from mezzotint.pipeline import measuring_settings
from mezzotint.plan import Budget, Plan, uniform_plan
from mezzotint.recipes import Job, RecipeName, RecipeOptions, check_floating, run_recipe
from mezzotint.recipes.given import check_budget, check_recipe
from mezzotint.runtime import pack_module, packed_copy, quantized_html, quantized_line


@dataclass(frozen=True)
class ModuleResult:
    """A quantized module and how it came to be.

    Attributes:
        module: the packed copy; its state dict loads into another copy packed after `plan`.
        plan: the choice of every layer.
        measurements: figures of candidates, measured or predicted, by layer and choice.
        record: all that was measured; `record.write(path)` keeps it for another budget.
    """

    module: nn.Module
    plan: Plan
    measurements: Measurements = field(default_factory=dict)
    record: Record | None = None

    def __repr__(self) -> str:
        return quantized_line("ModuleResult", self.plan, self.module)

    def _repr_html_(self) -> str:
        return quantized_html(repr(self), self.plan)


def quantize_module(
    module: nn.Module,
    calls: Iterable[Example],
    recipe: RecipeName | RecipeOptions = "auto",
    budget: Budget | None = None,
    *,
    journal: str | Path | None = None,
    measurements: str | Path | None = None,
    executor: str | ExecutorFactory | None = None,
) -> ModuleResult:
    """Find a plan for a denoiser that diffusers does not know, and pack a copy of it.

    The module may be any whose first or only output is a tensor; its Linear and Conv2d layers are
    quantized. It is left as it is.

    Args:
        module: floating.
        calls: calls of it, as `recording(module)` gives them, or pairs of arguments: (args,
            kwargs). Text embeddings of two prompts or more, where it reads any, so that a constant
            first token is told from others.
        recipe: a recipe's options or name. None that compares images, which a module alone does
            not make: `Auto(...)` by outputs, or `MixDQ(metric="sqnr")`.
        budget: what the plan may cost; by default 4-bit weights and 8-bit activations.
        journal: file for finished measurements, so that an interrupted run can resume.
        measurements: file of an earlier run's measurements of the same module and calls.
        executor: name of what runs the measurements, such as `ray`, or makes that, given the
            floating module; by default this process does, one after another.

    Raises:
        ExecutorError: the executor cannot be reached, or its workers die again and again.
        UsageError: an argument is of another type; there are no calls, or the module fails on one;
            the module is itself a Linear or Conv2d, or stands on the meta device; the recipe is
            unknown, or needs a pipeline; the module is quantized already, or has an adapter loaded.
        ModelError: the module has no layer to quantize, or returns no floating tensor.
        InfeasibleBudgetError: naming the nearest feasible budget.
        CalibrationError: weights or outputs hold NaN; the layer is named.
        JournalError: the journal or the measurements are of another module or other calls.
    """
    _check_module(module)
    check_recipe(recipe)
    check_budget(budget)
    if budget is not None and budget.pipeline_size is not None:
        raise UsageError("pipeline_size: there is no pipeline around a module; give a size")
    if calls is None:
        raise UsageError("calls: is None; give calls of the module, as recording(module) does")
    job = Job(
        denoiser=module,
        model=type(module).__name__,
        budget=budget or Budget(),
        measuring=measuring_settings(journal, measurements, executor),
    )
    outcome = run_recipe(recipe, job, calls)
    packed = packed_copy(module, outcome.plan, outcome.calibration)
    return ModuleResult(packed, outcome.plan, outcome.measurements, outcome.record)


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


def _check_module(module: nn.Module) -> None:
    check_module(module)
    if isinstance(module, nn.Linear | nn.Conv2d):
        raise UsageError(
            f"module: is itself a {type(module).__name__}, which cannot be replaced in place; put "
            "it into a module, such as nn.Sequential"
        )
    for name, tensor in module.state_dict(keep_vars=True).items():
        if isinstance(tensor, torch.Tensor) and tensor.is_meta:
            raise UsageError(f"module: {name} stands on the meta device; load the weights first")
