"""What a plan needs to be packed that no weight tells: constant outputs and static ranges."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mezzotint.calibration.constants import constant_outputs
from mezzotint.calibration.ranges import input_ranges
from mezzotint.errors import PlanError
from mezzotint.models import Call
from mezzotint.plan import Plan
from mezzotint.runtime import Packing


def needs_calibration(plan: Plan) -> bool:
    """Whether some layer has constant tokens or a static range."""
    return any(c.constant_tokens or c.static for c in plan.quantized.values())


def calibrated(denoiser: nn.Module, plan: Plan, calls: Sequence[Call]) -> Packing:
    """Constant outputs and static ranges of the plan's layers, as seen in recorded calls.

    Raises:
        PlanError: the calls do not show a first token to be constant; the layer is named.
        CalibrationError: a layer of a static range is never called, or sees NaN or infinity.
    """
    layers = plan.quantized
    found = constant_outputs(denoiser, [n for n, c in layers.items() if c.constant_tokens], calls)
    for name, why in found.refused.items():
        raise PlanError(f"layer {name}: constant_tokens: {why}; leave constant_tokens out for it")
    static = {name: choice for name, choice in layers.items() if choice.static}
    ranges = input_ranges(denoiser, static, calls) if static else {}
    return Packing(constants=found.constants, input_ranges=ranges)
