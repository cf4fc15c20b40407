"""Entries of a journal that hold what probes have found: one for each probe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mezzotint._journal import Journal
from mezzotint.errors import JournalError
from mezzotint.measuring.probed_layer import LayerCandidates
from mezzotint.measuring.probes import Probe
from mezzotint.measuring.projections import Projections, Values


def entry_key(probe: Probe, conditions: str) -> str:
    """Key of a probe's entry, under conditions that all projections depend on."""
    row = "all rows" if probe.row is None else f"row {probe.row}"
    return f"probe of call {probe.call}, {row}, seed {probe.seed} | {conditions}"


def read_projections(
    journal: Journal, keys: Sequence[str], candidates: Mapping[str, LayerCandidates]
) -> Projections:
    """The projections of several probes, in the order of their keys.

    Raises:
        JournalError: an entry holds no projections of all candidates; file and unit are named.
    """
    entries = [_checked(journal, key, candidates) for key in keys]

    def column(*path: str) -> Values:
        return np.array([_at(entry, path) for entry in entries], dtype=np.float64)

    return Projections(
        column("energy"),
        column("residual"),
        {
            name: {each: column("weights", name, each) for each in asked.weights}
            for name, asked in candidates.items()
        },
        {
            name: {key: column("inputs", name, key) for key in asked.inputs}
            for name, asked in candidates.items()
        },
    )


def _checked(
    journal: Journal, key: str, candidates: Mapping[str, LayerCandidates]
) -> Mapping[str, Any]:
    """A probe's entry in the journal, which may come from a file that was damaged."""
    entry = journal[key]
    paths: list[tuple[str, ...]] = [("energy",), ("residual",)]
    for name, asked in candidates.items():
        paths += [("weights", name, each) for each in asked.weights]
        paths += [("inputs", name, each) for each in asked.inputs]
    for path in paths:
        try:
            value = _at(entry, path)
        except (KeyError, TypeError):
            value = None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise JournalError(
                f"{journal.source(key) or 'the journal'}: unit {key!r}: {'.'.join(path)} is "
                f"{value!r}; expected a number; delete its line to probe again"
            )
    return entry


def _at(entry: Mapping[str, Any], path: Sequence[str]) -> Any:
    found: Any = entry
    for step in path:
        found = found[step]
    return found
