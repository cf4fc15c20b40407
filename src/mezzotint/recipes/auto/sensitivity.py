"""Losses of all candidates: measured one by one, or predicted by probes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mezzotint.formats import FLOAT
from mezzotint.measuring import InputChange, LayerChange
from mezzotint.plan import FULL, Choice, Encoding
from mezzotint.recipes.auto.losses import ByFormat
from mezzotint.recipes.auto.names import input_name, is_smoothed, weight_name

_ANY_WEIGHT = "int8/channel"
"""Weight format of a choice whose input is meant; it changes nothing."""

Candidates = Mapping[str, Sequence[Choice]]
"""Layer → its candidates, with its structures."""


@dataclass(frozen=True)
class Unit:
    """One format of one layer's weight or input, all else floating.

    Attributes:
        layer: its name.
        choice: the weight format with a floating input, or any with the input format.
        of_input: which of the two.
    """

    layer: str
    choice: Choice
    of_input: bool

    @property
    def format(self) -> str:
        """Name of the weight or input that is meant."""
        return input_name(self.choice) if self.of_input else weight_name(self.choice)

    def change(self, encoding: Encoding, clips: Mapping[str, str]) -> LayerChange | InputChange:
        """The change that measures it.

        Args:
            encoding: of all weights.
            clips: layer → clip of a static input, unless it is smoothed.
        """
        if self.of_input:
            smoothed = is_smoothed(self.choice)
            clip = encoding.clip if smoothed else clips.get(self.layer, FULL)
            return InputChange(self.layer, self.choice, clip)
        return LayerChange(self.layer, self.choice, encoding)


def units_of(layer: str, choices: Iterable[Choice]) -> tuple[Unit, ...]:
    """The weight formats among some choices of a layer, then the input formats; each once."""
    weights: dict[str, Unit] = {}
    inputs: dict[str, Unit] = {}
    for choice in choices:
        if choice.quantized:
            alone = choice.with_floating_input
            weights.setdefault(weight_name(choice), Unit(layer, alone, of_input=False))
        if choice.activation != FLOAT:
            alike = replace(choice, weight=_ANY_WEIGHT)
            inputs.setdefault(input_name(choice), Unit(layer, alike, of_input=True))
    return (*weights.values(), *inputs.values())


def losses_of(units: Sequence[Unit], losses: Sequence[float]) -> tuple[ByFormat, ByFormat]:
    """Losses of some weights and of some inputs, by layer and format."""
    weights: dict[str, dict[str, float]] = {unit.layer: {} for unit in units}
    inputs: dict[str, dict[str, float]] = {unit.layer: {} for unit in units}
    for unit, loss in zip(units, losses, strict=True):
        (inputs if unit.of_input else weights)[unit.layer][unit.format] = loss
    return weights, inputs
