"""Calibration of a plan: tensors of its structures, and static input ranges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from torch import nn

from mezzotint.calibration.observed_ranges import input_ranges
from mezzotint.calibration.structure_tensors import observe_structures
from mezzotint.errors import PlanError
from mezzotint.models import Call
from mezzotint.plan import CalibrationSettings, Choice, Plan, Structure, Tensors
from mezzotint.runtime import Calibration


def needs_calibration(plan: Plan) -> bool:
    """True where some layer has a static range, or a structure that has to be calibrated."""
    return any(
        choice.static or any(structure.calibrated for structure in choice.structures)
        for choice in plan.quantized.values()
    )


def calibrated(
    denoiser: nn.Module, plan: Plan, calls: Sequence[Call], probes: Sequence[Call] = ()
) -> Calibration:
    """Structures' tensors and static ranges of the plan's layers, as seen in recorded calls.

    Args:
        denoiser: the floating model.
        plan: its `calibration` gives the momentum of static ranges.
        calls: what is calibrated on.
        probes: further calls, of other prompts, in which structures such as constant tokens must
            find the same.

    Raises:
        PlanError: the calls do not allow a structure, such as a constant first token; the layer
            is named.
        CalibrationError: a layer of a static range is never called, or sees NaN or infinity.
    """
    layers = plan.quantized
    tensors: dict[str, Tensors] = {}
    for shown, structures in _watched(layers, calls, probes):
        found = observe_structures(denoiser, structures, shown)
        for name, refusal in found.refused.items():
            raise PlanError(
                f"layer {name}: {refusal.kind}: {refusal.why}; leave {refusal.kind} out for it"
            )
        tensors |= found.tensors
    static = {name: choice for name, choice in layers.items() if choice.static}
    momentum = None if plan.calibration is None else plan.calibration.momentum
    if not static:
        return Calibration(tensors=tensors)
    ranges = input_ranges(denoiser, static, calls, momentum=momentum, tensors=tensors)
    return Calibration(ranges, tensors)


def _watched(
    layers: Mapping[str, Choice], calls: Sequence[Call], probes: Sequence[Call]
) -> Iterator[tuple[Sequence[Call], dict[str, tuple[Structure, ...]]]]:
    """Calls to be shown to layers' structures: probes only where all calls must be alike."""
    constant: dict[str, tuple[Structure, ...]] = {}
    others: dict[str, tuple[Structure, ...]] = {}
    for name, choice in layers.items():
        alike = any(each.same_for_every_prompt for each in choice.structures)
        if any(each.calibrated for each in choice.structures):
            (constant if alike and probes else others)[name] = choice.structures
    if constant:
        yield [*calls, *probes], constant
    if others:
        yield calls, others


def with_settings(plan: Plan, settings: CalibrationSettings) -> Plan:
    """The plan, which says of its calibrated values that they were found like this.

    What makes no difference is left out: all of it where nothing is calibrated, and the momentum
    where no range is static.
    """
    if not needs_calibration(plan):
        return replace(plan, calibration=None)
    static = any(choice.static for choice in plan.quantized.values())
    return replace(plan, calibration=settings if static else replace(settings, momentum=None))
