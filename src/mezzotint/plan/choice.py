"""The choice: the formats of one layer's weight and input, and the structures they go with."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from mezzotint.errors import FormatError
from mezzotint.formats import (
    FLOAT,
    ActivationFormat,
    WeightFormat,
    parse_activation_format,
    parse_weight_format,
)
from mezzotint.plan.structure import Structure


@dataclass(frozen=True)
class Choice:
    """Formats and structures of one layer: its way of being stored and computed.

    Attributes:
        weight: weight format, by name; `float` leaves the weight as it is.
        activation: activation format, by name; `float` leaves the input as it is.
        structures: what the layer does beside one quantizer, outermost first: the parts of the
            first are layers under the others. All parts have both formats.

    Raises:
        FormatError: a format is unknown, or formats and structures do not go together.
    """

    weight: str = FLOAT
    activation: str = FLOAT
    structures: tuple[Structure, ...] = ()

    def __post_init__(self) -> None:
        parse_weight_format(self.weight)
        parse_activation_format(self.activation)
        if self.weight == FLOAT and self.activation != FLOAT:
            raise FormatError(
                f"activation {self.activation!r} goes with a quantized weight, not with 'float'"
            )
        self._check_structures()

    def _check_structures(self) -> None:
        if not isinstance(self.structures, tuple) or not all(
            isinstance(each, Structure) for each in self.structures
        ):
            raise FormatError(
                f"structures are {self.structures!r}; expected a tuple such as (ConstantTokens(1),)"
            )
        if self.structures and self.weight == FLOAT:
            raise FormatError(
                f"{self.structures[0].kind} goes with a quantized weight, not with 'float'"
            )
        for outer, inner in combinations(self.structures, 2):
            why = outer.refuse(inner)
            if why is not None:
                raise FormatError(f"{outer.kind} cannot hold {inner.kind}: {why}")

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
        """True if the weight is packed."""
        return self.weight != FLOAT

    @property
    def static(self) -> bool:
        """True if inputs are rounded within ranges that calibration finds."""
        activation = self.activation_format
        return activation is not None and activation.static

    @property
    def parts(self) -> int:
        """Number of quantizers."""
        return math.prod(len(each.part_names) for each in self.structures)

    @property
    def plain(self) -> Choice:
        """The same formats, for a layer of one quantizer."""
        return self.with_structures()

    @property
    def of_parts(self) -> Choice:
        """The choice of the parts that the outermost structure has."""
        return self.with_structures(*self.structures[1:])

    def with_structures(self, *structures: Structure) -> Choice:
        """The same formats, for a layer of these structures and no others.

        Raises:
            FormatError: they do not go together, or nothing is quantized.
        """
        return replace(self, structures=structures)

    @property
    def label(self) -> str:
        """The structures for people, such as `constant tokens: 1`; empty where there are none."""
        return ", ".join(each.label for each in self.structures)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the fields as they stand in a plan, `structures` where there are any."""
        formats = {"weight": self.weight, "activation": self.activation}
        if not self.structures:
            return formats
        return formats | {"structures": [each.to_dict() for each in self.structures]}

    def __str__(self) -> str:
        formats = f"{self.weight} × {self.activation}"
        return f"{formats}, {self.label}" if self.structures else formats
