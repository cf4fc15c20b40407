"""Memory for time: weights unpacked once instead of at every call."""

from __future__ import annotations

from operator import itemgetter

from torch import nn

from mezzotint.errors import UsageError
from mezzotint.runtime.convert import packed_layers
from mezzotint.runtime.part import QuantizedPart


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
    sizes = {part: _unpacked_bytes(part) for part in parts}
    total = 0
    for part, size in sorted(sizes.items(), key=itemgetter(1)):
        # Nothing is added by what stands in for the stored codes anyway.
        allowed = size > 0 and total + size <= spare_bytes
        part.allow_unpacked(allowed)
        total += size if allowed else 0
    return total


def _unpacked_bytes(part: QuantizedPart) -> int:
    device = part.weight_device.type
    return part.selection_on(device).kernel.unpacked_bytes(part.request_on(device))
