"""Memory for time: weights unpacked once instead of at every call."""

from __future__ import annotations

import math

from torch import nn

from mezzotint.errors import UsageError
from mezzotint.runtime.convert import packed_layers
from mezzotint.runtime.layer import QuantLayer


def keep_unpacked(module: nn.Module, spare_bytes: int) -> int:
    """Let layers below 8 bits keep their weight as 8-bit integers between calls.

    As many as fit into `spare_bytes`, beside what is stored; 0 takes it back. The smallest come
    first: unpacking costs them most for their size. It concerns layers on kernels of 8-bit
    integers on a processor, and changes no result.

    Returns:
        The bytes that will be held, from each layer's first call on.

    Raises:
        UsageError: `spare_bytes` is negative.
    """
    if spare_bytes < 0:
        raise UsageError(f"spare_bytes: {spare_bytes} is negative; 0 keeps nothing unpacked")
    parts = [part for layer in packed_layers(module).values() for part in layer.parts]
    total = 0
    for part in sorted(parts, key=_unpacked_bytes):
        size = _unpacked_bytes(part)
        part.may_hold_unpacked = part.selection.kernel.unpacks and total + size <= spare_bytes
        if part.may_hold_unpacked:
            total += size
        else:
            part.forget_unpacked()
    return total


def _unpacked_bytes(layer: QuantLayer) -> int:
    return math.prod(layer.weight_shape)
