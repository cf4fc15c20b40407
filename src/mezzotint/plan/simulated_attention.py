"""Rounding of what attention multiplies, simulated in floating point."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from pydantic import BaseModel, ConfigDict, StrictInt

from mezzotint.errors import FormatError
from mezzotint.formats import ActivationFormat


@dataclass(frozen=True)
class SimulatedAttention:
    """Bits of the operands of attention: queries, keys, values and softmax's probabilities.

    Each is rounded to `uint…/token`: every row that enters a product has a scale of its own, taken
    from the row itself. Those of values lie along the sum of their product, which no integers can
    compute; so all is rounded and multiplied in floating point, and is called simulated wherever it
    stands (Qua²SeDiMo, arXiv 2412.14628).

    Attributes:
        q: of queries as they enter QKᵀ, 2 to 8; None leaves them as they are.
        k: of keys.
        v: of values as they enter the product of probabilities and values.
        softmax: of the probabilities.

    Raises:
        FormatError: a number of bits is out of its domain, or nothing is rounded.
    """

    q: int | None = None
    k: int | None = None
    v: int | None = None
    softmax: int | None = None

    def __post_init__(self) -> None:
        if not self.bits:
            raise FormatError("simulated_attention: rounds nothing; leave it out")
        for name in self.bits:
            try:
                self.format_of(name)
            except FormatError as cause:
                raise FormatError(f"simulated_attention: {name}: {cause}") from cause

    @property
    def bits(self) -> dict[str, int]:
        """Operands that are rounded, and their bits."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: bits for name, bits in found.items() if bits is not None}

    def format_of(self, operand: str) -> ActivationFormat | None:
        """The format of `q`, `k`, `v` or `softmax`; None where it is left as it is."""
        bits = self.bits.get(operand)
        return (
            None if bits is None else ActivationFormat(bits, symmetric=False, granularity="token")
        )

    @classmethod
    def parse(cls, text: str) -> SimulatedAttention:
        """The rounding that a text stands for: `q8,k8,v8,softmax8`, or `8` for the same.

        Raises:
            FormatError: it stands for none; what it may say is named.
        """
        operands = [each.name for each in fields(cls)]
        if re.fullmatch(r"\d", text):
            return cls(**dict.fromkeys(operands, int(text)))
        parts = [re.fullmatch(rf"({'|'.join(operands)})(\d)", each) for each in text.split(",")]
        found = {match[1]: int(match[2]) for match in parts if match is not None}
        if len(found) < len(parts):
            raise FormatError(
                f"simulated_attention: is {text!r}; give 8 or 6 for all operands, or some of "
                "q8,k8,v8,softmax8, each once"
            )
        return cls(**found)

    def to_dict(self) -> dict[str, int]:
        """JSON values."""
        return self.bits

    def __str__(self) -> str:
        return ",".join(f"{name}{bits}" for name, bits in self.bits.items())


class SimulatedAttentionModel(BaseModel):
    """The rounding in JSON."""

    model_config = ConfigDict(extra="forbid")
    q: StrictInt | None = None
    k: StrictInt | None = None
    v: StrictInt | None = None
    softmax: StrictInt | None = None

    def value(self) -> SimulatedAttention:
        """The rounding.

        Raises:
            FormatError: a number of bits is out of its domain, or nothing is rounded.
        """
        return SimulatedAttention(**{name: bits for name, bits in self if bits is not None})
