"""Calibrated values of layers, in the form in which packing takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from mezzotint.plan import Choice, Structure, Tensors
from mezzotint.rounding import InputMoments
from mezzotint.runtime.encoded import EncodedWeights
from mezzotint.runtime.packed import GridValues, InputRange, PartCalibration

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibrated values, which decide stored bytes beside the plan and the weights.

    Attributes:
        input_ranges: calibrated ranges, one per part, for layers with a static activation format.
        tensors: what the structures of layers have calibrated: layer → name within it → tensor as
            it is stored.
        weights: layer → values on the grid of each of its parts, for layers whose rounding is
            `trained`.
        moments: layer → moments of the input of each of its parts, for layers whose encoding needs
            them.
        encoded: where weights are kept once they are encoded; of the same model and the same
            values as these. None to encode them anew each time.
        floating: dotted name of a parameter that stays floating, such as a bias or a norm's weight
            → what training has made of it.
        others: structures, those of a layer alone → values of layers that may have them, in the
            place of those above.
    """

    input_ranges: Mapping[str, tuple[InputRange, ...]] = field(default_factory=dict)
    tensors: Mapping[str, Tensors] = field(default_factory=dict)
    weights: Mapping[str, tuple[GridValues, ...]] = field(default_factory=dict)
    moments: Mapping[str, tuple[InputMoments, ...]] = field(default_factory=dict)
    encoded: EncodedWeights | None = None
    floating: Tensors = field(default_factory=dict)
    others: Mapping[tuple[Structure, ...], Calibration] = field(default_factory=dict)

    def under(self, choices: Mapping[str, Choice]) -> Calibration:
        """The values of layers that have the structures of these choices, and no others."""
        if not self.others:
            return self
        replaced = {
            name: other
            for name, choice in choices.items()
            if name in (other := self.others.get(choice.alone.structures, Calibration())).tensors
        }

        def each(
            own: Mapping[str, _T], of: Callable[[Calibration], Mapping[str, _T]]
        ) -> dict[str, _T]:
            kept = {name: values for name, values in own.items() if name not in replaced}
            found = {name: of(other) for name, other in replaced.items()}
            return kept | {name: values[name] for name, values in found.items() if name in values}

        return replace(
            self,
            input_ranges=each(self.input_ranges, lambda other: other.input_ranges),
            tensors=each(self.tensors, lambda other: other.tensors),
            moments=each(self.moments, lambda other: other.moments),
            others={},
        )

    def of_parts(self, name: str, parts: int) -> tuple[PartCalibration, ...]:
        """The values of each part of a layer, of which there are `parts`."""

        def each(values: Mapping[str, tuple[_T, ...]]) -> tuple[_T | None, ...]:
            return values.get(name) or (None,) * parts

        found = zip(each(self.input_ranges), each(self.weights), each(self.moments), strict=True)
        return tuple(PartCalibration(*values) for values in found)
