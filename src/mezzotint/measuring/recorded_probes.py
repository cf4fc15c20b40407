"""Probes of an earlier run, read from its record without the model that they are of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mezzotint.errors import JournalError
from mezzotint.measuring.probe_entries import NAMES, checked_entry, names_key

_PROBE = "probe of call "


@dataclass(frozen=True, eq=False)
class RecordedProbes:
    """Noise that the probes of one group of candidates tell, all around the same base model.

    Attributes:
        names: layer → names of its weights, then of its inputs.
        squares: layer → what each probe tells of the noise of each name, [names, probes].
        around_plan: True where the base model is a plan, not the floating one.
    """

    names: Mapping[str, tuple[str, ...]]
    squares: Mapping[str, NDArray[np.float64]]
    around_plan: bool

    @property
    def count(self) -> int:
        """Number of probes."""
        return next((each.shape[1] for each in self.squares.values()), 0)

    def row(self, layer: str, name: str, *, of_input: bool) -> NDArray[np.float64] | None:
        """Noise of one name by probe, [probes]; None where it was not probed.

        Weights stand before inputs, where both have the same name.
        """
        names = self.names.get(layer, ())
        if name not in names:
            return None
        index = len(names) - 1 - names[::-1].index(name) if of_input else names.index(name)
        found: NDArray[np.float64] = self.squares[layer][index]
        return found


def recorded_probes(
    entries: Mapping[str, Mapping[str, Any]], source: str
) -> tuple[RecordedProbes, ...]:
    """Every group of probes in a record.

    Args:
        entries: of the record.
        source: for messages.

    Raises:
        JournalError: an entry is malformed; the unit is named.
    """
    by_conditions: dict[str, list[str]] = {}
    for unit in entries:
        if unit.startswith(_PROBE):
            by_conditions.setdefault(unit.rpartition(" | ")[2], []).append(unit)
    found = []
    for conditions, units in by_conditions.items():
        listed = entries.get(names_key(conditions))
        if listed is None:
            raise JournalError(
                f"{source}: lacks the unit {NAMES!r} of some probes; measure that model again"
            )
        names = {str(layer): tuple(map(str, each)) for layer, each in listed.items()}
        found.append(_group(names, {unit: entries[unit] for unit in units}, source))
    return tuple(found)


def _group(
    names: Mapping[str, tuple[str, ...]], entries: Mapping[str, Mapping[str, Any]], source: str
) -> RecordedProbes:
    count = sum(map(len, names.values()))
    values = [checked_entry(unit, entry, count, source) for unit, entry in entries.items()]
    energy = np.array([entry["energy"] for entry in entries.values()], np.float64)
    power = np.maximum(energy, float(np.finfo(np.float32).tiny))
    squares = np.square(np.array(values, np.float64)).T / power
    ends = np.cumsum([len(each) for each in names.values()])[:-1]
    by_layer = dict(zip(names, np.split(squares, ends), strict=True))
    return RecordedProbes(names, by_layer, any(entry["residual"] for entry in entries.values()))
