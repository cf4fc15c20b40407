"""Labelled configurations of one model, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mezzotint.errors import PredictorError
from mezzotint.models import WeightGraph, WeightNode

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Space:
    """The configurations that one model can have.

    Attributes:
        keys: of weight nodes, in the order of every array.
        formats: names of the weight formats that each may take.
    """

    keys: tuple[str, ...]
    formats: tuple[str, ...]

    def checked(self, configurations: npt.ArrayLike) -> IntArray:
        """Configurations as int64 [m, weight nodes].

        Raises:
            PredictorError: the shape is another, or an entry is no index into the formats.
        """
        found = np.asarray(configurations)
        if found.ndim != 2 or found.shape[1] != len(self.keys) or found.dtype.kind not in "iu":
            raise PredictorError(
                f"configurations: {found.dtype} of shape {list(found.shape)}; expected integers "
                f"[any number, {len(self.keys)} weight nodes]"
            )
        wrong = (found < 0) | (found >= len(self.formats))
        if wrong.any():
            row, node = map(int, np.argwhere(wrong)[0])
            raise PredictorError(
                f"configurations: entry {row} gives {self.keys[node]} the format "
                f"{found[row, node]}; there are 0 to {len(self.formats) - 1}"
            )
        return found.astype(np.int64)


def choosing(graph: WeightGraph) -> tuple[WeightNode, ...]:
    """The weight nodes of a graph that can be quantized, so that they have a choice."""
    return tuple(node for node in graph.weights if node.quantizable)


def chosen(table: FloatArray, configurations: IntArray) -> FloatArray:
    """Entries of a table [weight nodes, formats] that configurations choose: [m, weight nodes]."""
    return table[np.arange(len(table)), configurations]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labels of configurations, and what is known of every choice without any label.

    Weight nodes that can be quantized stand in the order of `graph.weights` in every array; n is
    the number of labels.

    Attributes:
        graph: weight nodes, combine nodes, and which feeds which.
        formats: names of the weight formats that may be chosen.
        configurations: int64 [n, weight nodes], indices into `formats`.
        values: float64 [n], measured by a metric that is lower the better a model is.
        bytes: float64 [weight nodes, formats], stored bytes under each format.
        weight_errors: float64 [weight nodes, formats], mean |w-ŵ|^2.4 per weight.
        noises: float64 [weight nodes, formats], what each choice alone adds to the model's output;
            None where nobody measured it.

    Raises:
        PredictorError: an array has another shape, a number is NaN, infinite or out of its domain.
    """

    graph: WeightGraph
    formats: tuple[str, ...]
    configurations: IntArray
    values: FloatArray
    bytes: FloatArray
    weight_errors: FloatArray
    noises: FloatArray | None = None

    def __post_init__(self) -> None:
        tables = {"bytes": self.bytes, "weight_errors": self.weight_errors}
        if self.noises is not None:
            tables["noises"] = self.noises
        shape = (len(self.nodes), len(self.formats))
        if 0 in shape:
            raise PredictorError(
                f"there are {shape[0]} weight nodes and {shape[1]} formats: nothing can be chosen"
            )
        for name, table in tables.items():
            object.__setattr__(self, name, np.asarray(table, np.float64))
            _check_table(name, getattr(self, name), shape)
        object.__setattr__(self, "values", np.asarray(self.values, np.float64))
        object.__setattr__(self, "configurations", self.space.checked(self.configurations))
        self._check_values()

    @property
    def nodes(self) -> tuple[WeightNode, ...]:
        """The weight nodes that have a choice, in the order of every array."""
        return choosing(self.graph)

    @property
    def space(self) -> Space:
        """Layers and formats that may be chosen for them."""
        return Space(tuple(node.key for node in self.nodes), self.formats)

    @property
    def weights(self) -> FloatArray:
        """Number of weights of each weight node: float64 [weight nodes]."""
        return np.array([node.weights for node in self.nodes], np.float64)

    @cached_property
    def bits(self) -> FloatArray:
        """Stored bits per weight of each labelled configuration: float64 [n]."""
        return self.stored_bits(self.configurations)

    def stored_bits(self, configurations: IntArray) -> FloatArray:
        """Stored bits per weight of the whole model: float64 [m].

        Args:
            configurations: int64 [m, weight nodes].
        """
        stored: FloatArray = chosen(self.bytes, configurations).sum(1)
        return stored * (8 / float(self.weights.sum()))

    def _check_values(self) -> None:
        if self.values.shape != (len(self.configurations),):
            raise PredictorError(
                f"values: shape {list(self.values.shape)}; expected one for each of the "
                f"{len(self.configurations)} configurations"
            )
        bad = np.flatnonzero(~np.isfinite(self.values))
        if bad.size:
            raise PredictorError(
                f"values: label {bad[0]} is {self.values[bad[0]]} ({bad.size} of "
                f"{len(self.values)} are not finite); measure it again, or leave it out"
            )


def _check_table(name: str, table: FloatArray, shape: tuple[int, int]) -> None:
    if table.shape != shape:
        raise PredictorError(
            f"{name}: shape {list(table.shape)}; expected {shape[0]} weight nodes × {shape[1]} "
            "formats"
        )
    if not np.isfinite(table).all() or (table < 0).any():
        node, choice = map(int, np.argwhere(~(np.isfinite(table) & (table >= 0)))[0])
        raise PredictorError(
            f"{name}: is {table[node, choice]} at node {node}, format {choice}; expected 0 or more"
        )
    if name == "bytes" and not table.all():
        raise PredictorError("bytes: a choice takes none; every stored weight takes some")
