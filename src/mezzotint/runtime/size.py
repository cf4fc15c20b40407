"""The one figure for size: bytes of the tensors that are stored of a module. Bits beside it."""

from __future__ import annotations

import math

from torch import Tensor, nn

from mezzotint._stored_dtypes import stored_dtypes
from mezzotint.plan import Choice, LayerShape
from mezzotint.runtime.layer_tensors import quantizers


def module_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and persistent buffers, shared storage counted once.

    This is what `save_pretrained` writes, file headers aside: floating tensors count in the dtype
    that the model's checkpoint has, be it computed in another.
    """
    state: dict[str, Tensor] = module.state_dict(keep_vars=True)
    dtypes = stored_dtypes(module, state)
    sizes = {id(each): each.numel() * dtypes[name].itemsize for name, each in state.items()}
    return sum(sizes.values())


def weights_by_format(choice: Choice, layer: LayerShape) -> dict[Choice, int]:
    """Formats of a layer's quantizers, as a layer of that one alone → weights that have them.

    Raises:
        PlanError: such a layer cannot have one of the structures.
    """
    found: dict[Choice, int] = {}
    shapes = quantizers(choice.structures, layer)
    for (_, shape), each in zip(shapes, choice.of_quantizers, strict=True):
        found[each.plain] = found.get(each.plain, 0) + math.prod(shape.weight)
    return found


def nominal_bits(choice: Choice, layer: LayerShape) -> float | None:
    """Average bits per weight of a layer's codes, without scales; None where it stays floating.

    Raises:
        PlanError: such a layer cannot have one of the structures.
    """
    bits = weights = 0.0
    for each, count in weights_by_format(choice, layer).items():
        if each.weight_format is None:
            return None
        bits += each.weight_format.bits * count
        weights += count
    return bits / weights
