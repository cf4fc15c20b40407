"""In which order units are measured, and which of them at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mezzotint._progress import track
from mezzotint.sensitivity.journal import Journal
from mezzotint.sensitivity.replay import Replay
from mezzotint.sensitivity.units import Unit


def measure_missing(
    units: Sequence[Unit],
    journal: Journal,
    replay: Replay,
    score: Callable[[Unit], dict[str, Any]],
    key: Callable[[Unit], str] = lambda unit: unit.name,
) -> None:
    """Journal the score of each unit that is not there yet, under its key.

    Layer by layer in the order of execution, with `replay` at the layer. Where the journal holds
    all of them, nothing is run.
    """
    missing = {key(unit): unit for unit in units if key(unit) not in journal}
    described = track(_by_layer(list(missing.values()), replay), "Measuring", len(missing))
    for unit in described:
        journal.add(key(unit), score(unit))


def _by_layer(units: Sequence[Unit], replay: Replay) -> Iterator[Unit]:
    layers: dict[str, list[Unit]] = {}
    for unit in units:
        layers.setdefault(unit.layer, []).append(unit)
    if not layers:
        return
    for layer in replay.order(layers):
        replay.advance(layer)
        yield from layers[layer]
