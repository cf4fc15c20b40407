"""Labels of configurations, read from the folder in which they were measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mezzotint._journal import Record
from mezzotint.bank import BankIndex
from mezzotint.errors import JournalError, LabelError
from mezzotint.labels.change import PREFIX
from mezzotint.labels.configuration import Configuration
from mezzotint.labels.header import (
    BANK_FOLDER,
    GRAPH_FILE,
    HEADER_FILE,
    JOURNAL_FILE,
    LabelHeader,
)
from mezzotint.labels.metrics import label_metric
from mezzotint.labels.sampler import StoredSizes
from mezzotint.measuring import Metric, Unchanged
from mezzotint.models import WeightGraph

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Labels:
    """Configurations of one model, and their measured quality; lower is better.

    n is the number of labels, in the order in which they were measured; weights stand in the order
    of `keys`. Configurations that ruin the model are left out.

    Attributes:
        graph: of the model's weights.
        formats: that every weight may take.
        keys: of the weights that have a choice, in the order of `graph.weights`.
        configurations: int64 [n, weights], indices into `formats`.
        values: float64 [n].
        errors_of_values: standard errors, float64 [n]; NaN where the metric tells none.
        floor: the metric of the floating model against itself; None where it was not measured yet.
        bytes: stored bytes, int64 [weights, formats].
        weight_errors: mean |w - ŵ|^2.4 per weight, float64 [weights, formats].
        weights: number of weights behind each key, int64 [weights].
        ruined: number of configurations that made NaN or infinite values.
        context: everything else that the labels depend on, JSON values.
    """

    graph: WeightGraph
    formats: tuple[str, ...]
    keys: tuple[str, ...]
    configurations: Ints
    values: Floats
    errors_of_values: Floats
    floor: float | None
    bytes: Ints
    weight_errors: Floats
    weights: Ints
    ruined: int
    context: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def bits(self) -> Floats:
        """Stored bits per weight of each configuration, float64 [n]."""
        return StoredSizes(self.bytes, self.weights).average(self.configurations)

    def configuration(self, index: int) -> Configuration:
        """The configuration of one label, by names."""
        places = self.configurations[index].tolist()
        return Configuration(
            {key: self.formats[place] for key, place in zip(self.keys, places, strict=True)}
        )

    @classmethod
    def read(cls, folder: str | Path) -> Labels:
        """Read what `mezzotint sample` has measured so far.

        The stored tensors of the bank are not needed, only its index.

        Raises:
            LabelError: there are no labels, they are damaged or not of one model, or all are equal,
                so that nothing can be learned from them.
            BankError, ModelError: the bank's index or the graph is missing or damaged.
        """
        folder = Path(folder)
        if not (folder / HEADER_FILE).is_file():
            raise LabelError(f"{folder}: holds no labels; make some with `mezzotint sample`")
        header = LabelHeader.load(folder / HEADER_FILE)
        graph = WeightGraph.load(folder / GRAPH_FILE)
        nodes = BankIndex.load(folder / BANK_FOLDER / BankIndex.FILE).nodes
        keys = tuple(node.key for node in graph.weights if node.quantizable)
        if {*keys} != {*nodes}:
            odd = sorted({*keys} ^ {*nodes})[0]
            raise LabelError(
                f"{folder}: its graph and its bank are of different weights, such as {odd}; delete "
                "it, and sample anew"
            )
        for key, name in product(keys, header.formats):
            if name not in nodes[key].candidates:
                raise LabelError(
                    f"{folder}: its bank has no {name} of {key}, which labels may take; delete it, "
                    "and sample anew"
                )
        measured = _Measured.read(folder / JOURNAL_FILE, header, keys)
        if not measured.values:
            raise LabelError(f"{folder}: holds no labels yet; go on with `mezzotint sample`")
        if len(measured.values) > 1 and len({*measured.values}) == 1:
            raise LabelError(
                f"{folder}: all {len(measured.values)} labels are {measured.values[0]:g}: the "
                f"metric {header.metric} tells configurations not apart; use another one"
            )
        candidates = [[nodes[key].candidates[name] for name in header.formats] for key in keys]
        return cls(
            graph=graph,
            formats=header.formats,
            keys=keys,
            configurations=np.array(measured.configurations, dtype=np.int64),
            values=np.array(measured.values, dtype=np.float64),
            errors_of_values=np.array(measured.errors, dtype=np.float64),
            floor=measured.floor,
            bytes=np.array([[each.bytes for each in row] for row in candidates], dtype=np.int64),
            weight_errors=np.array([[each.error for each in row] for row in candidates]),
            weights=np.array([nodes[key].weights for key in keys], dtype=np.int64),
            ruined=measured.ruined,
            context=header.to_dict(),
        )


@dataclass(frozen=True)
class _Measured:
    """The content of the journal.

    Attributes:
        configurations: indices of formats.
        values: finite.
        errors: NaN where the metric tells none.
        floor: None where it was not measured.
        ruined: configurations that are left out.
    """

    configurations: tuple[tuple[int, ...], ...]
    values: tuple[float, ...]
    errors: tuple[float, ...]
    floor: float | None
    ruined: int

    @classmethod
    def read(cls, path: Path, header: LabelHeader, keys: tuple[str, ...]) -> _Measured:
        """Read the labels that the metric of the header has made.

        Raises:
            LabelError: one is damaged; it is named.
        """
        try:
            record = Record.read(path)
        except JournalError as cause:
            raise LabelError(str(cause)) from cause
        if record.header != header.to_dict():
            raise LabelError(
                f"{path}: is of other labels than {HEADER_FILE} beside it; delete both, and sample "
                "anew"
            )
        metric = label_metric(header.metric, header.images)
        rows: dict[tuple[int, ...], tuple[float, float]] = {}
        floor, ruined = None, 0
        for unit, figures in record.entries.items():
            change, measured_by, *_ = *unit.split(" | "), ""
            if measured_by != metric.name:
                continue
            value, error = _label(metric, figures, f"{path}: unit {unit!r}")
            if change == Unchanged().name:
                floor = value
            elif not change.startswith(PREFIX):
                continue
            elif math.isinf(value):
                ruined += 1
            else:
                text = change.removeprefix(PREFIX)
                found = Configuration.of_text(text, keys, header.formats)
                rows[found.indices(keys, header.formats)] = value, error
        values, errors = ([each[place] for each in rows.values()] for place in (0, 1))
        return cls(tuple(rows), tuple(values), tuple(errors), floor, ruined)


def _label(metric: Metric, stored: Mapping[str, Any], where: str) -> tuple[float, float]:
    """Value and standard error; infinite values stand in a journal as null."""
    figures = {name: math.inf if value is None else value for name, value in stored.items()}
    fault = metric.fault(figures)
    if fault is None and math.isnan(metric.loss(figures)):
        fault = "is NaN"
    if fault is not None:
        raise LabelError(f"{where}: {fault}; delete its line to measure it again")
    error = metric.standard_error(figures)
    return metric.loss(figures), math.nan if error is None else error
