"""What a user can ask for: bytes, or average bits."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from mezzotint.errors import BudgetError, UsageError
from mezzotint.uniform import NO_ACTIVATION_BITS

_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{prefix}B": 1000**power for power, prefix in enumerate("KMG", 1)}
_UNITS |= {f"{prefix}IB": 1024**power for power, prefix in enumerate("KMG", 1)}


def parse_size(text: str) -> int:
    """Bytes in `6MB`, `1.5 GiB` or `7000000`.

    Raises:
        BudgetError: not a number with one of these units, or less than a byte.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMG]?I?B?)\s*", text.upper())
    size = float(match.group(1)) * _UNITS.get(match.group(2), 0) if match else 0.0
    if not 1 <= size < math.inf:
        raise BudgetError(f"size {text!r} is not understood; write it as 6MB, 1.5GiB or 7000000")
    return int(size)


@dataclass(frozen=True)
class Budget:
    """What a plan may cost. Several limits hold together; none at all means 4-bit weights.

    Attributes:
        weight_bits: average stored bits per weight over the quantized layers, scales and zero
            points included.
        size: stored bytes of the whole denoiser, whatever stays floating included; an integer,
            or text such as `6MB`.
        act_bits: 8 for int8 activations, 16 for none. An average, such as 7.7, is for recipes that
            give layers different widths (`mixdq`).
    """

    weight_bits: float | None = None
    size: int | str | None = None
    act_bits: float = 8

    def __post_init__(self) -> None:
        if self.act_bits != NO_ACTIVATION_BITS and not 2 <= self.act_bits <= 8:
            raise UsageError(f"act_bits is {self.act_bits}; expected 2 to 8, or 16 for none")
        if self.weight_bits is None and self.size is None:
            object.__setattr__(self, "weight_bits", 4.0)
        bits = self.weight_bits
        if bits is not None and not (math.isfinite(bits) and 0 < bits <= 16):
            raise BudgetError(f"weight_bits is {bits}; expected a number above 0 and at most 16")
        if self.size is not None and self.bytes is not None and self.bytes <= 0:
            raise BudgetError(f"size is {self.size}; expected a positive number of bytes")

    @property
    def bytes(self) -> int | None:
        """`size` in bytes."""
        return parse_size(self.size) if isinstance(self.size, str) else self.size
