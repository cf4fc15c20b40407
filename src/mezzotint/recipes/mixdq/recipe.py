"""MixDQ (arXiv 2405.17873): few-step text-to-image in mixed precision, weights and inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mezzotint.allocation import protected
from mezzotint.calibration import with_settings
from mezzotint.models import Group, inventory
from mezzotint.plan import Choice, Plan
from mezzotint.recipes.base import Job, Outcome, register_recipe
from mezzotint.recipes.mixdq.budgets import input_programs, weight_programs
from mezzotint.recipes.mixdq.deciding import Decision, check_feasible, decide, everything
from mezzotint.recipes.mixdq.lab import Lab, lab_context, open_lab
from mezzotint.recipes.mixdq.measuring import (
    Found,
    input_units,
    measured,
    sensitivities,
    unmeasured,
    weight_units,
)
from mezzotint.recipes.mixdq.options import MixdqOptions
from mezzotint.recipes.mixdq.programs import Sensitivity, Widths
from mezzotint.recipes.mixdq.selection import Choices, image_error

NOT_PACKED = (
    "stays floating: only Linear and Conv2d layers that the denoiser runs as such can be packed"
)


@register_recipe(
    "mixdq",
    "MixDQ for few-step models: constant first token, split shortcuts, one metric per group",
    MixdqOptions,
)
def mixdq(job: Job, options: MixdqOptions) -> Outcome:
    """Calibrate once, measure with two metrics, solve, and let the images choose: weights first.

    Inputs follow, given the weights; the few most sensitive of each group stay floating.
    """
    with open_lab(job, options) as lab:
        check_budget(lab)
        weights, measurements = decide_weights(lab)
        inputs = decide_inputs(lab, weights.widths) if lab.quantizes_inputs else Inputs()
        plan = plan_of(lab, weights, inputs)
    return Outcome(plan, lab.calibration, measurements)


@dataclass(frozen=True)
class Inputs:
    """What becomes of the layers' inputs.

    Attributes:
        decision: widths of the inputs that are quantized.
        protected: layer → why its input stays floating.
    """

    decision: Decision = field(default_factory=lambda: Decision({}, {}))
    protected: Mapping[str, str] = field(default_factory=dict)


def check_budget(lab: Lab) -> None:
    """Whether the budget can be met, before hours of measuring.

    Raises:
        InfeasibleBudgetError: it cannot; names what can.
    """
    check_feasible(lab.options, weight_programs(lab, unmeasured(lab, weight_units(lab))))
    if lab.quantizes_inputs:
        units = input_units(lab, lab.options.activation_bits)
        check_feasible(lab.options, input_programs(lab, unmeasured(lab, units)))


def decide_weights(lab: Lab) -> tuple[Decision, Found]:
    """Widths of all weights, while inputs are floating; and what was measured for it."""
    units = weight_units(lab)
    bare = weight_programs(lab, unmeasured(lab, units))
    if bare.unlimited():
        return everything(bare), {}
    found = measured(lab, units)
    programs = weight_programs(lab, sensitivities(lab, units, found))
    return decide(lab, programs, lambda widths: choices_of(lab, widths, {})), found


def decide_inputs(lab: Lab, weights: Widths) -> Inputs:
    """Widths of the inputs, given those of the weights; protected layers leave the program."""
    widest = max(lab.options.activation_bits)
    bare = input_programs(lab, unmeasured(lab, input_units(lab, lab.options.activation_bits)))
    if bare.unlimited() and not lab.options.protect:
        return Inputs(everything(bare))
    units = input_units(lab, [widest] if bare.unlimited() else lab.options.activation_bits)
    seen = sensitivities(lab, units, measured(lab, units))
    kept = protected_inputs(lab, seen)
    free = {name: layer for name, layer in seen.items() if name not in kept}
    if not free:
        return Inputs(protected=kept)
    # Errors of the weights are there already; the joint unit is about what inputs add to them.
    joint = lab.options.split == "joint"
    base = image_error(lab, choices_of(lab, weights, {})) if joint else 0.0
    programs = input_programs(lab, free)
    decision = decide(lab, programs, lambda inputs: choices_of(lab, weights, inputs), base)
    return Inputs(decision, kept)


def protected_inputs(lab: Lab, layers: Mapping[str, Sensitivity]) -> dict[str, str]:
    """The lowest-scored share of each group at the widest candidate, and why it is kept."""
    widest = max(lab.options.activation_bits)
    kept: dict[str, str] = {}
    for group in Group:
        scores = {n: layer.scores[widest] for n, layer in layers.items() if layer.group is group}
        for name in protected(scores, lab.options.protect):
            kept[name] = (
                f"input stays floating: at {widest} bits it is among the most sensitive "
                f"{lab.options.protect:.3g} of the {group} layers (score {scores[name]:.4g})"
            )
    return kept


def choices_of(lab: Lab, weights: Widths, inputs: Widths) -> Choices:
    """The choice of every packed layer; inputs without a width stay floating."""
    return {name: lab.choice(name, width, inputs.get(name)) for name, width in weights.items()}


def plan_of(lab: Lab, weights: Decision, inputs: Inputs) -> Plan:
    """The plan, with a reason wherever a layer is not quantized like the others."""
    choices = dict(choices_of(lab, weights.widths, inputs.decision.widths))
    reasons = lab.structure.reasons()
    for name, why in inputs.protected.items():
        reasons[name] = f"{reasons[name]}; {why}" if name in reasons else why
    for layer in inventory(lab.job.denoiser):
        if layer.name not in choices:
            choices[layer.name] = Choice()
            reasons[layer.name] = NOT_PACKED
    # The average is that of the inputs which are not protected.
    summary = {
        "weights": weights.summary,
        "inputs": inputs.decision.summary,
        "protected_inputs": sorted(inputs.protected),
    }
    plan = Plan(choices, lab.job.model, reasons, lab_context(lab) | summary, encoding=lab.encoding)
    return with_settings(plan, lab.settings)
