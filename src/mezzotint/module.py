"""Any torch module and example inputs in, a measured plan and the packed module out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from mezzotint._journal import Record
from mezzotint.errors import UsageError
from mezzotint.measuring import Measurements
from mezzotint.models import Example, completed_calls
from mezzotint.pipeline import keeping
from mezzotint.plan import Budget, Plan
from mezzotint.recipes import Job, check_latency, chosen_recipe
from mezzotint.runtime import packed_copy, packed_layers


@dataclass(frozen=True)
class ModuleResult:
    """A quantized module and how it came to be.

    Attributes:
        module: the packed copy; its state dict loads into another copy packed after `plan`.
        plan: the choice of every layer.
        measurements: what the recipe measured, by layer and choice.
        record: all that was measured; `record.write(path)` keeps it for another budget.
    """

    module: nn.Module
    plan: Plan
    measurements: Measurements = field(default_factory=dict)
    record: Record | None = None


def quantize_module(
    module: nn.Module,
    calls: Iterable[Example],
    recipe: str | Any = "auto",
    budget: Budget | None = None,
    *,
    journal: str | Path | None = None,
    measurements: str | Path | None = None,
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

    Raises:
        UsageError: there are no calls; an unknown recipe, or one that needs a pipeline; the module
            is quantized already.
        InfeasibleBudgetError: naming the nearest feasible budget.
        CalibrationError: weights or outputs hold NaN; the layer is named.
        JournalError: the journal or the measurements are of another module or other calls.
    """
    chosen, options = chosen_recipe(recipe)
    budget = budget or Budget()
    check_latency(chosen, budget)
    if packed_layers(module):
        raise UsageError("the module is quantized already; start from the original")
    job = Job(
        denoiser=module,
        model=type(module).__name__,
        budget=budget,
        calls=completed_calls(module, calls),
        keeping=keeping(journal, measurements),
    )
    outcome = chosen.run(job, options)
    packed = packed_copy(module, outcome.plan, outcome.calibration)
    return ModuleResult(packed, outcome.plan, outcome.measurements, outcome.record)
