"""One tensor of the source in; the tensors that are stored for it out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mezzotint.errors import FormatError
from mezzotint.plan import Plan
from mezzotint.runtime import Calibration, pack_weight
from mezzotint.streaming.calibrated import Calibrated, of_weight_alone, specs_of
from mezzotint.streaming.units import Unit


def pack_unit(
    unit: Unit, model: nn.Module, plan: Plan, calibrated: Calibrated
) -> dict[str, Tensor]:
    """The tensors of `unit.outputs`; `model` gives the layers' geometry, on the meta device.

    Raises:
        CheckpointError: a file is truncated or damaged.
        FormatError: a tensor holds NaN, a weight infinity, or a value is too large for its dtype;
            file and tensor are named.
    """
    tensor = unit.source.read()
    if unit.layer is None:
        return {name: _cast(tensor, spec.dtype, unit) for name, spec in unit.outputs.items()}
    found = {name: calibrated[name].read() for name in unit.outputs if name in calibrated}
    if found.keys() == unit.outputs.keys():
        return found
    choice, layer = of_weight_alone(plan[unit.layer]), model.get_submodule(unit.layer)
    start = f"{unit.layer}."
    # Input ranges stand there in stored form; they are taken over as they are.
    alone = Plan({unit.layer: choice}, encoding=plan.encoding_of(unit.layer))
    known = {name: found[f"{start}{name}"] for name in specs_of(alone, unit.layer, model)}
    try:
        packed = pack_weight(
            unit.layer, layer, tensor, alone, Calibration(tensors={unit.layer: known})
        )
    except FormatError as cause:
        raise FormatError(f"{unit.source}: {cause}") from cause
    of_weight = packed.state_dict(prefix=start)
    return {name: found[name] if name in found else of_weight[name] for name in unit.outputs}


def _cast(tensor: Tensor, dtype: torch.dtype, unit: Unit) -> Tensor:
    """What stays floating, in `dtype`; infinities may stay, but none may arise."""
    result = tensor.to(dtype)
    # Bytes of the narrowest floating types have no extremes in torch.
    if not tensor.is_floating_point() or not tensor.numel() or dtype.itemsize == 1:
        return result
    before, after = (_extremes(each) for each in (tensor, result))
    if any(math.isnan(value) for value in before):
        raise FormatError(f"{unit.source}: holds NaN; the file is damaged")
    if any(map(math.isinf, after)) and not any(map(math.isinf, before)):
        raise FormatError(f"{unit.source}: holds values too large for {dtype}; store it in another")
    return result


def _extremes(tensor: Tensor) -> tuple[float, float]:
    low, high = tensor.aminmax()
    return float(low), float(high)
