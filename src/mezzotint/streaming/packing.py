"""One tensor of the source in; the tensors that are stored for it out."""

from __future__ import annotations

from torch import Tensor, nn

from mezzotint.errors import FormatError
from mezzotint.formats import MSE
from mezzotint.plan import Plan
from mezzotint.runtime import empty_layer
from mezzotint.streaming.calibrated import Calibrated, of_weight_alone
from mezzotint.streaming.units import Unit


def pack_unit(
    unit: Unit, model: nn.Module, plan: Plan, calibrated: Calibrated
) -> dict[str, Tensor]:
    """The tensors of `unit.outputs`; `model` gives the layers' geometry, on the meta device.

    Raises:
        CheckpointError: a file is truncated or damaged.
        FormatError: the weight holds NaN or infinity; file and tensor are named.
    """
    tensor = unit.source.read()
    if unit.layer is None:
        return {name: tensor.to(spec.dtype) for name, spec in unit.outputs.items()}
    choice = of_weight_alone(plan[unit.layer])
    packed = empty_layer(unit.layer, model.get_submodule(unit.layer), choice)
    try:
        packed.load_weight(tensor, MSE)
    except FormatError as cause:
        raise FormatError(f"{unit.source}: {cause}") from cause
    of_weight = packed.state_dict(prefix=f"{unit.layer}.")
    return {
        name: calibrated[name].read() if name in calibrated else of_weight[name]
        for name in unit.outputs
    }
