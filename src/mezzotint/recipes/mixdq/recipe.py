"""MixDQ (arXiv 2405.17873): few-step text-to-image in mixed precision, weights and inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mezzotint.errors import InfeasibleBudgetError
from mezzotint.measuring import Measurements
from mezzotint.models import LayerGroup
from mezzotint.plan import Plan
from mezzotint.recipes.blamed_pins import naming_pins
from mezzotint.recipes.job import Job, Outcome, register_recipe
from mezzotint.recipes.mixdq.budgets import input_programs, weight_programs
from mezzotint.recipes.mixdq.deciding import Decision, check_feasible, decide, everything
from mezzotint.recipes.mixdq.method import Method, Setting, calibrated
from mezzotint.recipes.mixdq.options import MixDQ
from mezzotint.recipes.mixdq.programs import Sensitivity, Widths
from mezzotint.recipes.mixdq.protect import protected
from mezzotint.recipes.mixdq.selection import Choices, image_errors
from mezzotint.recipes.mixdq.sensitivity import (
    input_changes,
    measured,
    sensitivities,
    unmeasured,
    weight_changes,
)
from mezzotint.recipes.restrictions import Restrictions
from mezzotint.recipes.unpacked import add_unpacked


@register_recipe(
    "mixdq",
    "MixDQ for few-step models: constant first token, split shortcuts, one metric per group",
    MixDQ,
)
def mixdq(job: Job, options: MixDQ) -> Outcome:
    """Calibrate once, measure with two metrics, solve, and let the images choose: weights first.

    Inputs follow, given the weights; the few most sensitive of each group stay floating.
    """
    setting = Setting.of(job, options)
    check_budget(setting)
    with calibrated(setting) as method:
        weights, measurements = decide_weights(method)
        inputs = (
            decide_inputs(method, weights.widths) if method.quantizes_inputs else InputDecision()
        )
        plan = plan_of(method, weights, inputs)
    return Outcome(plan, method.calibration, measurements, method.measuring.journal.record)


@dataclass(frozen=True)
class InputDecision:
    """Widths and exceptions of the layers' inputs.

    Attributes:
        decision: widths of the inputs that are quantized.
        protected: layer → why its input stays floating.
    """

    decision: Decision = field(default_factory=lambda: Decision({}, {}))
    protected: Mapping[str, str] = field(default_factory=dict)


def check_budget(setting: Setting) -> None:
    """Check that the budget can be met, before anything is calibrated.

    Raises:
        InfeasibleBudgetError: it cannot; names what can.
    """
    try:
        _check_programs(setting)
    except InfeasibleBudgetError as cause:

        def pose(others: Restrictions) -> None:
            _check_programs(replace(setting, study=replace(setting.study, restrictions=others)))

        raise naming_pins(cause, setting.study, pose) from cause


def _check_programs(setting: Setting) -> None:
    weights = unmeasured(setting, weight_changes(setting))
    check_feasible(setting.options, weight_programs(setting, weights))
    inputs = input_changes(setting, setting.options.activation_bits)
    if setting.quantizes_inputs and inputs:
        check_feasible(setting.options, input_programs(setting, unmeasured(setting, inputs)))


def decide_weights(method: Method) -> tuple[Decision, Measurements]:
    """Widths of all weights, while inputs are floating; and what was measured for it."""
    changes = weight_changes(method)
    bare = weight_programs(method, unmeasured(method, changes))
    if bare.unlimited():
        return everything(bare), {}
    found = measured(method, changes, bare.target)
    programs = weight_programs(method, sensitivities(method, changes, found))
    return decide(method, programs, lambda widths: choices_of(method, widths, {})), found


def decide_inputs(method: Method, weights: Widths) -> InputDecision:
    """Widths of the inputs, given those of the weights; protected layers leave the program."""
    widths = method.options.activation_bits
    every = input_changes(method, widths)
    if not every:  # all are pinned to float
        return InputDecision()
    bare = input_programs(method, unmeasured(method, every))
    if bare.unlimited() and not method.options.protect:
        return InputDecision(everything(bare))
    changes = input_changes(method, [max(widths)] if bare.unlimited() else widths)
    seen = sensitivities(method, changes, measured(method, changes, bare.target))
    kept = protected_inputs(method, seen)
    free = {name: layer for name, layer in seen.items() if name not in kept}
    if not free:
        return InputDecision(protected=kept)
    # Errors of the weights are there already; the joint unit is about what inputs add to them.
    joint = method.options.split == "joint"
    base = image_errors(method, [choices_of(method, weights, {})])[0] if joint else 0.0
    programs = input_programs(method, free)
    decision = decide(method, programs, lambda inputs: choices_of(method, weights, inputs), base)
    return InputDecision(decision, kept)


def protected_inputs(method: Method, layers: Mapping[str, Sensitivity]) -> dict[str, str]:
    """The lowest-scored share of each group at the widest candidate, and why it is kept.

    Inputs that are pinned are none of them.
    """
    widest = max(method.options.activation_bits)
    pins = {name: method.study.restrictions.pin(name) for name in layers}
    free = {n for n, pin in pins.items() if pin is None or pin.activation is None}
    kept: dict[str, str] = {}
    for group in LayerGroup:
        scores = {n: layers[n].scores[widest] for n in free if layers[n].group is group}
        for name in protected(scores, method.options.protect):
            kept[name] = (
                f"input stays floating: at {widest} bits it is among the most sensitive "
                f"{method.options.protect:.3g} of the {group} layers (score {scores[name]:.4g})"
            )
    return kept


def choices_of(method: Method, weights: Widths, inputs: Widths) -> Choices:
    """The choice of every packed layer; inputs without a width stay floating."""
    return {name: method.choice(name, width, inputs.get(name)) for name, width in weights.items()}


def plan_of(method: Method, weights: Decision, inputs: InputDecision) -> Plan:
    """The plan, with a reason wherever a layer is not quantized like the others."""
    choices = choices_of(method, weights.widths, inputs.decision.widths)
    reasons = method.study.structures.reasons()
    restrictions, names = method.study.restrictions, method.study.names
    told = (*inputs.protected.items(), *restrictions.reasons(names).items())
    for name, why in told:
        reasons[name] = f"{reasons[name]}; {why}" if name in reasons else why
    choices = restrictions.completed(choices, names)
    add_unpacked(choices, reasons, method.study.job.denoiser, method.study.graph)
    # The average is that of the inputs which are not protected.
    summary = {
        "weights": weights.summary,
        "inputs": inputs.decision.summary,
        "protected_inputs": sorted(inputs.protected),
    }
    plan = Plan(
        choices,
        method.study.job.model,
        reasons,
        method.context() | summary,
        encoding=method.encoding,
    )
    return method.study.settled(plan)
