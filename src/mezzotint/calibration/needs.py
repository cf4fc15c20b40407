"""Calibration that a plan needs to be packed: structures' tensors and static ranges."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mezzotint.calibration.ranges import input_ranges
from mezzotint.calibration.structures import observe_structures
from mezzotint.errors import PlanError
from mezzotint.models import Call
from mezzotint.plan import Plan
from mezzotint.runtime import Packing


def needs_calibration(plan: Plan) -> bool:
    """True if some layer has a static range, or a structure that has to be calibrated."""
    return any(
        choice.static or any(structure.calibrated for structure in choice.structures)
        for choice in plan.quantized.values()
    )


def calibrated(denoiser: nn.Module, plan: Plan, calls: Sequence[Call]) -> Packing:
    """Structures' tensors and static ranges of the plan's layers, as seen in recorded calls.

    Raises:
        PlanError: the calls do not allow a structure, such as a constant first token; the layer
            is named.
        CalibrationError: a layer of a static range is never called, or sees NaN or infinity.
    """
    layers = plan.quantized
    structures = {name: choice.structures for name, choice in layers.items() if choice.structures}
    found = observe_structures(denoiser, structures, calls)
    for name, refusal in found.refused.items():
        raise PlanError(
            f"layer {name}: {refusal.kind}: {refusal.why}; leave {refusal.kind} out for it"
        )
    static = {name: choice for name, choice in layers.items() if choice.static}
    ranges = input_ranges(denoiser, static, calls, tensors=found.tensors) if static else {}
    return Packing(tensors=found.tensors, input_ranges=ranges)
