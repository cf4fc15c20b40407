"""Pinned layers among the candidates."""

from __future__ import annotations

from collections.abc import Sequence

from mezzotint.plan import Choice
from mezzotint.recipes.auto.sensitivity import Candidates
from mezzotint.recipes.study import Study


def with_pins(
    study: Study,
    candidates: Candidates,
    formats: Sequence[Choice],
) -> dict[str, tuple[Choice, ...]]:
    """Every layer's candidates; of pinned layers what the pin allows, with every allowed input.

    Args:
        study: knows structures of layers.
        candidates: of all layers.
        formats: between which layers without a pin choose, without structures of layers.
    """
    found = {name: tuple(each) for name, each in candidates.items()}
    for name in found:
        pin = study.restrictions.pin(name)
        if pin is not None:
            pinned = pin.choices(formats)
            found[name] = tuple(study.structures.applied(name, each) for each in pinned)
    return found


def pinned_formats(study: Study, formats: Sequence[Choice]) -> tuple[Choice, ...]:
    """The formats, and those of pins."""
    pins = study.restrictions.pins
    own = (each for pin in pins for each in pin.choices(formats) if each.quantized)
    return tuple(dict.fromkeys((*formats, *own)))
