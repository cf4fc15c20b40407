"""Entries of a journal that hold what probes have found: one for each probe, one for the names."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mezzotint._journal import Journal
from mezzotint.errors import JournalError
from mezzotint.measuring.probed_layer import LayerCandidates
from mezzotint.measuring.probes import Probe
from mezzotint.measuring.projections import Projections

NAMES = "changes that are probed"
"""First part of the key of the entry that names what was probed."""

_FLOAT32 = np.dtype("<f4")

Sums = Mapping[str, Mapping[str, float]]
"""Layer → name of a change → its projection."""


@dataclass(frozen=True)
class ProbeEntries:
    """Form of the entries of all probes of the same candidates under the same conditions.

    Projections of thousands of changes are kept for each probe: as float32 in base64, in the order
    of the candidates, whose names are an entry of their own.

    Attributes:
        candidates: layer → changes that are asked for.
        conditions: a hash of all that projections depend on, the candidates among them.
    """

    candidates: Mapping[str, LayerCandidates]
    conditions: str

    def key(self, probe: Probe) -> str:
        """Key of a probe's entry."""
        row = "all rows" if probe.row is None else f"row {probe.row}"
        return f"probe of call {probe.call}, {row}, seed {probe.seed} | {self.conditions}"

    def add(self, journal: Journal, probe: Probe, found: Mapping[str, Any]) -> None:
        """Keep what one probe has found, and with the first one the names of its projections.

        Args:
            journal: open.
            probe: which one.
            found: `energy` and `residual`, numbers; `weights` and `inputs`, sums of all changes.
        """
        names = names_key(self.conditions)
        if names not in journal:
            asked = self.candidates.items()
            journal.add(names, {layer: [*each.weights, *each.inputs] for layer, each in asked})
        weights, inputs = found["weights"], found["inputs"]
        sums = [
            (inputs if of_input else weights)[layer][name] for layer, of_input, name in self._order
        ]
        values = base64.b64encode(np.array(sums, _FLOAT32).tobytes()).decode("ascii")
        kept = {"energy": found["energy"], "residual": found["residual"], "projections": values}
        journal.add(self.key(probe), kept)

    def read(self, journal: Journal, probes: Sequence[Probe]) -> Projections:
        """The projections of several probes, in their order.

        Raises:
            JournalError: an entry holds no projections of all candidates; file and unit are named.
        """
        entries = [self._checked(journal, self.key(probe)) for probe in probes]
        rows = np.array([values for _, values in entries], np.float64)
        weights: dict[str, dict[str, NDArray[np.float64]]] = {name: {} for name in self.candidates}
        inputs: dict[str, dict[str, NDArray[np.float64]]] = {name: {} for name in self.candidates}
        for (layer, of_input, name), column in zip(self._order, rows.T, strict=True):
            (inputs if of_input else weights)[layer][name] = column
        energy, residual = (
            np.array([entry[field] for entry, _ in entries], np.float64)
            for field in ("energy", "residual")
        )
        return Projections(energy, residual, weights, inputs)

    @property
    def _order(self) -> list[tuple[str, bool, str]]:
        """Layer, whether its input is meant, and name of every change."""
        found = []
        for layer, asked in self.candidates.items():
            found += [(layer, False, name) for name in asked.weights]
            found += [(layer, True, name) for name in asked.inputs]
        return found

    def _checked(self, journal: Journal, key: str) -> tuple[Mapping[str, Any], NDArray[np.float32]]:
        """A probe's entry in the journal, which may come from a file that was damaged."""
        entry, source = journal[key], journal.source(key) or "the journal"
        return entry, checked_entry(key, entry, len(self._order), str(source))


def names_key(conditions: str) -> str:
    """Key of the entry that names all changes that are probed under some conditions."""
    return f"{NAMES} | {conditions}"


def checked_entry(
    key: str, entry: Mapping[str, Any], count: int, source: str
) -> NDArray[np.float32]:
    """The projections of a probe's entry, which may come from a file that was damaged.

    Args:
        key: of the entry, for messages.
        entry: in a journal or record.
        count: of projections that it should have.
        source: of the entry, for messages.

    Raises:
        JournalError: it holds no such projections.
    """
    fault = next((name for name in ("energy", "residual") if not _number(entry.get(name))), "")
    values = _numbers(entry.get("projections"))
    if fault:
        fault = f"{fault} is {entry.get(fault)!r}; expected a number"
    elif values is None or len(values) != count or not np.isfinite(values).all():
        fault = f"projections are not {count} numbers, float32 in base64"
    if fault:
        raise JournalError(f"{source}: unit {key!r}: {fault}; delete its line to probe again")
    assert values is not None, "or that is the fault"
    return values


def _number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


def _numbers(text: object) -> NDArray[np.float32] | None:
    """Values that are kept as base64; None where they are not."""
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), _FLOAT32)  # type: ignore[arg-type]
    except (TypeError, ValueError, binascii.Error):
        return None
