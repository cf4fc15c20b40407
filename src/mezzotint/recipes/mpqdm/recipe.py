"""MPQ-DM (arXiv 2412.11549): weights of 2 to 4 bits, with light training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mezzotint.plan import Plan
from mezzotint.recipes.distillation import distilling
from mezzotint.recipes.job import Job, Outcome, register_recipe
from mezzotint.recipes.mpqdm.byte_program import counts_bytes, planned_by_bytes
from mezzotint.recipes.mpqdm.method import Method, prepared
from mezzotint.recipes.mpqdm.omq import mixed_widths
from mezzotint.recipes.mpqdm.options import MPQDM
from mezzotint.recipes.mpqdm.plan_bits import plan_bits
from mezzotint.recipes.mpqdm.step_bits import step_bits
from mezzotint.recipes.outlier_channels import Mixture
from mezzotint.recipes.unpacked import add_unpacked


@register_recipe(
    "mpqdm",
    "MPQ-DM for 2 to 4 bits: widths by channel, inputs scaled by step, light training",
    MPQDM,
)
def mpqdm(job: Job, options: MPQDM) -> Outcome:
    """Smooth, scale inputs step by step, mix widths inside layers, and train all of it.

    The data are the floating model's own: its calls at every denoising step, and the states that
    it goes through. Where bytes are counted, one program over all layers finds the plan instead.
    """
    with distilling(job, options.training) as distilled:
        by_bytes = counts_bytes(job, options)
        return distilled(planned_by_bytes(job, options) if by_bytes else planned(job, options))


def planned(job: Job, options: MPQDM) -> Outcome:
    """The plan of nominal widths, calibrated."""
    method = prepared(job, options)
    uniform = method.plan()
    calibration = method.calibrated(uniform)
    mixtures = mixed_widths(method, uniform, calibration)
    weights = {name: mixture.format for name, mixture in mixtures.items()}
    if not options.step_bits:
        return Outcome(explained(method, method.plan(weights), mixtures), calibration)
    bits = step_bits(method, uniform, calibration)
    plan = method.plan(weights, bits.by_layer)
    told = explained(method, plan, mixtures)
    told = replace(told, context={**told.context, **bits.context()})
    return Outcome(told, method.calibrated(plan))


def explained(method: Method, plan: Plan, mixtures: Mapping[str, Mixture]) -> Plan:
    """The plan with its exceptions, what it stores per weight, and how it came to be."""
    study = method.study
    bits = plan_bits(study.job.denoiser, study.layers, plan.choices, method.exempt)
    structures = study.structures.reasons()
    reasons = {name: why for name, why in structures.items() if plan[name].structures}
    reasons |= {name: each.reason for name, each in method.exempt.items()}
    choices = dict(plan.choices)
    shown = {name: mixture.m for name, mixture in mixtures.items()}
    add_unpacked(choices, reasons, study.job.denoiser, study.graph)
    context = {**method.context(), **bits.context(), "outlier_channels": shown}
    return replace(plan, choices=choices, reasons=reasons, context=context)
