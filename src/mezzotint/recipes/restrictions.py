"""Layers that the user decides about: pinned to a choice, or left floating."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mezzotint._patterns import check_pattern, matches
from mezzotint.errors import FormatError, UsageError
from mezzotint.formats import FLOAT, parse_activation_format
from mezzotint.plan import Choice


@dataclass(frozen=True)
class Pin:
    """Weight format, and perhaps input format, of the layers that a pattern names.

    Attributes:
        text: as the user wrote it, such as `*.to_k=int8/channel` or `conv_in=int8/channel:float`.
        pattern: of the layers.
        weight: their weight format; `float` leaves them as they are.
        activation: their activation format; None leaves it to the recipe.
    """

    text: str
    pattern: str
    weight: str
    activation: str | None = None

    @classmethod
    def of(cls, text: str) -> Pin:
        """Read `PATTERN=WEIGHT` or `PATTERN=WEIGHT:INPUT`.

        Raises:
            UsageError: it is something else, or a format is unknown.
        """
        pattern, _, choice = text.rpartition("=")
        weight, _, activation = choice.partition(":")
        if not pattern or not weight:
            raise UsageError(f"pin: {text!r} is not of the form 'PATTERN=int8/channel'")
        check_pattern(f"pin {text!r}", pattern)
        try:
            Choice(weight)
            parse_activation_format(activation or FLOAT)
            if weight == FLOAT:
                Choice(weight, activation or FLOAT)
        except FormatError as cause:
            raise UsageError(f"pin {text!r}: {cause}") from cause
        return cls(text, pattern, weight, activation or None)

    def choices(self, candidates: Iterable[Choice]) -> tuple[Choice, ...]:
        """The pinned choices, one for each input that the candidates have and the pin allows.

        Raises:
            UsageError: an input needs what only other inputs have, such as scales for each step.
        """
        alike = [
            replace(each, weight=self.weight)
            for each in candidates
            if each.quantized and self.activation in (None, each.activation)
        ]
        if self.activation is not None and not alike:
            try:
                alike = [Choice(self.weight, self.activation)]
            except FormatError as cause:
                raise UsageError(f"pin {self.text!r}: {cause}") from cause
        return tuple(dict.fromkeys(alike or [Choice(self.weight)]))


@dataclass(frozen=True)
class Restrictions:
    """Pins and exclusions by pattern; where several pins name a layer, the last one holds.

    Attributes:
        pins: in the user's order.
        exclude: patterns of layers that stay floating.
    """

    pins: tuple[Pin, ...] = ()
    exclude: tuple[str, ...] = ()

    @classmethod
    def of(cls, pin: Sequence[str], exclude: Sequence[str]) -> Restrictions:
        """Read a recipe's options.

        Raises:
            UsageError: one of them is malformed, or is no list of texts.
        """
        for field, given in (("pin", pin), ("exclude", exclude)):
            if isinstance(given, str) or not all(isinstance(each, str) for each in given):
                raise UsageError(f"{field}: is {given!r}; give a tuple of texts")
        for pattern in exclude:
            check_pattern(f"exclude {pattern!r}", pattern)
        return cls(tuple(map(Pin.of, pin)), tuple(exclude))

    def check(self, layers: Sequence[str]) -> None:
        """Refuse a pattern that names no layer.

        Args:
            layers: all that can be quantized.

        Raises:
            UsageError: the pattern is named, or all layers are excluded.
        """
        for pattern in self.exclude:
            if not any(matches(name, pattern) for name in layers):
                raise UsageError(f"exclude {pattern!r}: {_NO_LAYER}")
        for pin in self.pins:
            if not any(matches(name, pin.pattern) for name in layers):
                raise UsageError(f"pin {pin.text!r}: {_NO_LAYER}")
        if all(self.floating(name) for name in layers):
            raise UsageError("exclude: every layer stays floating; exclude fewer")

    def floating(self, layer: str) -> str | None:
        """Reason for which a layer stays floating; None where it may be quantized."""
        for pattern in self.exclude:
            if matches(layer, pattern):
                return f"stays floating: excluded by {pattern!r}"
        pin = self._last(layer)
        return None if pin is None or pin.weight != FLOAT else f"stays floating: pin {pin.text!r}"

    def pin(self, layer: str) -> Pin | None:
        """The pin of a layer that is quantized, if it has one."""
        return None if self.floating(layer) else self._last(layer)

    def _last(self, layer: str) -> Pin | None:
        found = [pin for pin in self.pins if matches(layer, pin.pattern)]
        return found[-1] if found else None

    def without(self, pin: Pin) -> Restrictions:
        """The same but for one pin."""
        return replace(self, pins=tuple(each for each in self.pins if each is not pin))

    @property
    def context(self) -> dict[str, object]:
        """Part of a plan's context, JSON values; empty where there are none."""
        found: dict[str, object] = {}
        if self.pins:
            found["pin"] = [each.text for each in self.pins]
        if self.exclude:
            found["exclude"] = list(self.exclude)
        return found

    def completed(self, choices: Mapping[str, Choice], layers: Iterable[str]) -> dict[str, Choice]:
        """The choices of a plan, with the layers that stay floating among them.

        Args:
            choices: of the plan.
            layers: all that can be quantized, in the model's order.
        """
        floating = {name: Choice() for name in layers if self.floating(name) is not None}
        known = {**floating, **choices}
        return {name: known[name] for name in dict.fromkeys((*layers, *choices)) if name in known}

    def reasons(self, layers: Iterable[str]) -> dict[str, str]:
        """Layer → what decides it, of the layers that a pattern names."""
        found: dict[str, str] = {}
        for name in layers:
            why, pin = self.floating(name), self.pin(name)
            if why is None and pin is not None:
                why = f"pinned by {pin.text!r}"
            if why is not None:
                found[name] = why
        return found


_NO_LAYER = "names no layer that can be quantized; `mezzotint inspect MODEL` lists them"
