"""The choice: the formats of one layer's weight and input, and the structure they go with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mezzotint.errors import FormatError
from mezzotint.formats import (
    FLOAT,
    ActivationFormat,
    WeightFormat,
    parse_activation_format,
    parse_weight_format,
)

#: No model has longer sequences, or layers of more inputs.
_HIGHEST = 2**16 - 1


@dataclass(frozen=True)
class Choice:
    """How one layer is stored and computed.

    Attributes:
        weight: weight format, by name; `float` leaves the weight as it is.
        activation: activation format, by name; `float` leaves the input as it is.
        constant_tokens: the layer's output for that many first tokens of its input is a stored
            constant; only the others pass through quantized weights. For text whose first token
            is the same in every prompt (BOS-aware quantization of MixDQ).
        split: input channels before and after this one have quantizers of their own, both in the
            same formats; 0 for one quantizer. For concatenated inputs of different ranges
            (shortcut splitting of MixDQ).

    Raises:
        FormatError: a format is unknown, a number out of its domain, or the two do not go together.
    """

    weight: str = FLOAT
    activation: str = FLOAT
    constant_tokens: int = 0
    split: int = 0

    def __post_init__(self) -> None:
        parse_weight_format(self.weight)
        parse_activation_format(self.activation)
        if self.weight == FLOAT and self.activation != FLOAT:
            raise FormatError(
                f"activation {self.activation!r} goes with a quantized weight, not with 'float'"
            )
        for name, value in self._structure.items():
            if type(value) is not int or not 0 <= value <= _HIGHEST:
                raise FormatError(
                    f"{name} is {value!r}; expected a whole number from 0 (for none) to {_HIGHEST}"
                )
            if value and self.weight == FLOAT:
                raise FormatError(f"{name} {value} goes with a quantized weight, not with 'float'")
        if self.constant_tokens and self.split:
            raise FormatError(
                "constant_tokens and split do not go together in one layer; keep one of them"
            )

    @property
    def weight_format(self) -> WeightFormat | None:
        """None for `float`."""
        return parse_weight_format(self.weight)

    @property
    def activation_format(self) -> ActivationFormat | None:
        """None for `float`."""
        return parse_activation_format(self.activation)

    @property
    def quantized(self) -> bool:
        """Whether the weight is packed."""
        return self.weight != FLOAT

    @property
    def static(self) -> bool:
        """Whether inputs are rounded within ranges that calibration finds."""
        activation = self.activation_format
        return activation is not None and activation.static

    @property
    def parts(self) -> int:
        """Number of quantizers: two where the input is split."""
        return 2 if self.split else 1

    @property
    def plain(self) -> Choice:
        """The same formats, for a layer without constant tokens or split."""
        return self.with_structure()

    def with_structure(self, constant_tokens: int = 0, split: int = 0) -> Choice:
        """The same formats, for a layer with this structure.

        Raises:
            FormatError: a number is out of its domain, both are given, or nothing is quantized.
        """
        return replace(self, constant_tokens=constant_tokens, split=split)

    @property
    def structure(self) -> str:
        """`constant tokens: 1` or `split at 320`; empty where there is neither."""
        if self.constant_tokens:
            return f"constant tokens: {self.constant_tokens}"
        return f"split at {self.split}" if self.split else ""

    def to_dict(self) -> dict[str, str | int]:
        """JSON values: the fields as they stand in a plan, without a structure there is not."""
        structure = {name: value for name, value in self._structure.items() if value}
        return {"weight": self.weight, "activation": self.activation, **structure}

    @property
    def _structure(self) -> dict[str, int]:
        return {"constant_tokens": self.constant_tokens, "split": self.split}

    def __str__(self) -> str:
        formats = f"{self.weight} × {self.activation}"
        return f"{formats}, {self.structure}" if self.structure else formats
