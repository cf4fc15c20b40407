"""The choice: the formats of one layer's weight and input, and the structures they go with."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, ClassVar

from mezzotint.errors import FormatError
from mezzotint.formats import (
    FLOAT,
    ActivationFormat,
    WeightFormat,
    parse_activation_format,
    parse_weight_format,
)
from mezzotint.plan.part_formats import checked_part_formats, formats_within
from mezzotint.plan.structure import Structure


@dataclass(frozen=True)
class Choice:
    """Formats and structures of one layer: its way of being stored and computed.

    Attributes:
        weight: weight format, by name; `float` leaves the weight as it is. That of all parts but
            those in `part_formats`.
        activation: activation format, by name; `float` leaves the input as it is.
        structures: what the layer does beside one quantizer, outermost first: the parts of the
            first are layers under the others. All parts have the activation format.
        part_formats: weight formats of parts that have another, as pairs of a part's name and the
            format's, such as `(("second", "int3/channel"),)`. The first part of a structure has
            `weight` always.

    Raises:
        FormatError: a format is unknown, or formats and structures do not go together.
    """

    weight: str = FLOAT
    activation: str = FLOAT
    structures: tuple[Structure, ...] = ()
    part_formats: tuple[tuple[str, str], ...] = ()

    _whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        parse_weight_format(self.weight)
        parse_activation_format(self.activation)
        if self.weight == FLOAT and self.activation != FLOAT:
            raise FormatError(
                f"activation {self.activation!r} goes with a quantized weight, not with 'float'"
            )
        self._check_structures()
        checked = checked_part_formats(self.weight, self.structures, self.part_formats)
        object.__setattr__(self, "part_formats", checked)
        if self._whole:
            self._check_granularity()

    def _check_granularity(self) -> None:
        """Refuse scales that nothing stores, and tables of scales for another format."""
        activation = self.activation_format
        if activation is not None and activation.per_step and not self.steps:
            raise FormatError(
                f"activation {self.activation!r} goes with the structure step_scales, which stores "
                "a scale for each timestep; add it as the last of the structures, or take "
                f"'{replace(activation, granularity='tensor')}'"
            )
        for each in self.structures:
            if each.granularity is None:
                continue
            if activation is None or activation.granularity != each.granularity:
                raise FormatError(
                    f"{each.kind} goes with an activation such as 'uint4/{each.granularity}', not "
                    f"with {self.activation!r}"
                )
            why = each.refuse_input(activation)
            if why is not None:
                raise FormatError(f"activation {self.activation!r}: {why}")

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
            if outer.kind == inner.kind:
                raise FormatError(f"{outer.kind} stands twice; keep one of them")
            why = outer.refuse(inner) or inner.refuse_outer(outer)
            if why is not None:
                raise FormatError(f"{outer.kind} cannot hold {inner.kind}: {why}")

    @property
    def weight_format(self) -> WeightFormat | None:
        """Format of the first quantizer's weight; None for `float`."""
        return parse_weight_format(self.weight)

    @property
    def weight_formats(self) -> tuple[WeightFormat, ...]:
        """The weight format of every quantizer, in the order of their inputs; none for `float`."""
        formats = (each.weight_format for each in self.of_quantizers)
        return tuple(each for each in formats if each is not None)

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
    def steps(self) -> int:
        """Timesteps that the layer stores a scale for; 0 where it has none for each."""
        return max((each.calibrated_steps for each in self.structures), default=0)

    @property
    def timed(self) -> bool:
        """True if the layer depends on the denoiser's timestep."""
        return any(each.timed for each in self.structures)

    @property
    def input_scales(self) -> tuple[Structure, ...]:
        """The structures that store scales of its inputs: none, or one for each timestep."""
        return tuple(each for each in self.structures if each.granularity is not None)

    @property
    def with_floating_input(self) -> Choice:
        """The same weight, in the same structures but for those of its input's scales."""
        kept = tuple(each for each in self.structures if each.granularity is None)
        return replace(self, activation=FLOAT, structures=kept)

    @property
    def parts(self) -> int:
        """Number of quantizers."""
        return math.prod(len(each.part_names) for each in self.structures)

    @property
    def plain(self) -> Choice:
        """The formats of the first quantizer, for a layer of that alone: of all steps alike."""
        activation = self.activation_format
        if activation is None or not activation.per_step:
            return self.with_structures()
        return Choice(self.weight, replace(activation, granularity="tensor").name)

    def of_part(self, name: str) -> Choice:
        """The choice of the part called `name` of the outermost structure."""
        rest = self.structures[1:]
        kind = _Fragment if self.steps and not (self._whole and rest) else Choice
        weight = dict(self.part_formats).get(name, self.weight)
        return kind(weight, self.activation, rest, formats_within(rest, self.part_formats))

    @property
    def of_quantizers(self) -> tuple[Choice, ...]:
        """The choice of every quantizer, without structures, in the order of their inputs."""
        if not self.structures:
            return (self,)
        names = self.structures[0].part_names
        return tuple(each for name in names for each in self.of_part(name).of_quantizers)

    @property
    def of_weight(self) -> Choice:
        """The same structures and weight formats, which name and store all but static ranges."""
        kind = _Fragment if self.steps else Choice
        return kind(self.weight, FLOAT, self.structures, self.part_formats)

    def with_structures(self, *structures: Structure) -> Choice:
        """The same formats, for a layer of these structures and no others.

        Formats of parts that none of them has are left out.

        Raises:
            FormatError: they do not go together, or nothing is quantized.
        """
        kept = formats_within(structures, self.part_formats)
        return replace(self, structures=structures, part_formats=kept)

    @property
    def alone(self) -> Choice:
        """The same codes, for a layer that stands among floating modules."""
        return replace(self, structures=tuple(each.alone for each in self.structures))

    @property
    def weight_label(self) -> str:
        """The weight formats for people, such as `int4/channel, second: int3/channel`."""
        others = (f"{name}: {weight}" for name, weight in self.part_formats)
        return ", ".join([self.weight, *others])

    @property
    def label(self) -> str:
        """The structures for people, such as `constant tokens: 1`; empty where there are none."""
        return ", ".join(each.label for each in self.structures)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the fields as they stand in a plan, the last two where there are any."""
        value: dict[str, Any] = {"weight": self.weight, "activation": self.activation}
        if self.structures:
            value["structures"] = [each.to_dict() for each in self.structures]
        if self.part_formats:
            value["part_formats"] = dict(self.part_formats)
        return value

    def __str__(self) -> str:
        formats = f"{self.weight_label} × {self.activation}"
        return f"{formats}, {self.label}" if self.structures else formats


@dataclass(frozen=True)
class _Fragment(Choice):
    """A choice of which the scales for each timestep, or what they are of, stand elsewhere."""

    _whole: ClassVar[bool] = False
