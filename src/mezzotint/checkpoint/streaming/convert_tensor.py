"""One tensor of the source in; the tensors that are stored for it out."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from mezzotint.checkpoint.streaming.calibrated import Calibrated, specs_of
from mezzotint.checkpoint.streaming.conversions import Conversion
from mezzotint.errors import FormatError
from mezzotint.plan import Plan
from mezzotint.runtime import Calibration, pack_weight


def convert_tensor(
    conversion: Conversion, model: nn.Module, plan: Plan, calibrated: Calibrated
) -> dict[str, Tensor]:
    """The tensors of `conversion.outputs`; `model` gives the layers' geometry, on the meta device.

    Raises:
        CheckpointError: a file is truncated or damaged.
        FormatError: a tensor holds NaN or infinity, or a value too large for its dtype; file and
            tensor are named.
    """
    tensor = conversion.source.read()
    if conversion.layer is None:
        return {
            name: _cast(
                calibrated[name].read() if name in calibrated else tensor, spec.dtype, conversion
            )
            for name, spec in conversion.outputs.items()
        }
    found = {name: calibrated[name].read() for name in conversion.outputs if name in calibrated}
    if found.keys() == conversion.outputs.keys():
        return found
    choice, layer = plan[conversion.layer].of_weight, model.get_submodule(conversion.layer)
    start = f"{conversion.layer}."
    # Input ranges stand there in stored form; they are taken over as they are.
    encoding = replace(plan.encoding_of(conversion.layer), bias_correction=False)
    alone = Plan({conversion.layer: choice}, encoding=encoding)
    known = {name: found[f"{start}{name}"] for name in specs_of(alone, conversion.layer, model)}
    try:
        packed = pack_weight(
            conversion.layer, layer, tensor, alone, Calibration(tensors={conversion.layer: known})
        )
    except FormatError as cause:
        raise FormatError(f"{conversion.source}: {cause}") from cause
    of_weight = packed.state_dict(prefix=start)
    return {name: found[name] if name in found else of_weight[name] for name in conversion.outputs}


def _cast(tensor: Tensor, dtype: torch.dtype, conversion: Conversion) -> Tensor:
    """Convert what stays floating to `dtype`; NaN and infinity neither are there nor arise."""
    result = tensor.to(dtype)
    # Bytes of the narrowest floating types have no extremes in torch.
    if not tensor.is_floating_point() or not tensor.numel() or dtype.itemsize == 1:
        return result
    if not _is_finite(tensor):
        raise FormatError(f"{conversion.source}: holds NaN or infinite values; the file is damaged")
    if not _is_finite(result):
        raise FormatError(
            f"{conversion.source}: holds values too large for {dtype}; store it in another"
        )
    return result


def _is_finite(tensor: Tensor) -> bool:
    return all(math.isfinite(extreme) for extreme in tensor.aminmax())
