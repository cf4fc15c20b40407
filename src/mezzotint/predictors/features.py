"""Features of every node under every choice, as the graph network reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mezzotint.errors import PredictorError
from mezzotint.formats import parse_weight_format
from mezzotint.models import WeightGraph
from mezzotint.predictors.dataset import Dataset

#: Bytes of a floating weight, and bits of nodes that quantize nothing.
_FLOATING_BYTES, _FLOATING_BITS = 2, 16.0

#: Method of nodes without a choice, and layer type of combine nodes.
_NONE = ""


def method_and_bits(name: str) -> tuple[str, float]:
    """Method and nominal bits of a weight format: ("kmeans/channel", 3.0) of `kmeans3/channel`.

    Raises:
        FormatError: no weight format has that name.
    """
    parsed = parse_weight_format(name)
    if parsed is None:
        return name, _FLOATING_BITS
    family, _, rest = name.partition("/")
    # A mixed format's widths are no method: `mixed/int2:64,int4:64` is `mixed`.
    scheme = re.sub(r"\d+$", "", family)
    return (scheme if ":" in rest else "/".join(filter(None, (scheme, rest)))), float(parsed.bits)


@dataclass(frozen=True, eq=False)
class NodeFeatures:
    """Features of all nodes of a graph under all formats.

    Attributes:
        categories: int64 [nodes, formats, columns], indices: method, bits, layer type, and the
            parts of the block code that differ within the graph.
        sizes: number of categories of each column.
        numbers: float32 [nodes, formats, 2]: 100 × floating bytes per stored byte, and 100 × the
            error; each less its mean over all choices, in units of its spread. The layer that
            reads them is linear, so this changes what it can learn by nothing; but the batch norm
            after it takes errors for constant that are as small as those of real weights.
    """

    categories: Tensor
    sizes: tuple[int, ...]
    numbers: Tensor

    @classmethod
    def of(cls, dataset: Dataset) -> NodeFeatures:
        """Features of a dataset's graph and choices.

        Raises:
            FormatError: one of its formats has a name that is none.
        """
        graph, kinds = dataset.graph, [method_and_bits(name) for name in dataset.formats]
        places = _places(graph)
        methods = _categories([_NONE, *(method for method, _ in kinds)])
        widths = _categories([_FLOATING_BITS, *(bits for _, bits in kinds)])
        roles = _categories([_NONE, *(str(node.role) for node in graph.weights)])
        codes = [_categories([0, *column]) for column in places.T.tolist()]
        shape = (len(graph.nodes), len(dataset.formats))
        # At 0: neither method nor layer type, 16 bits, block code 0.
        categories = np.zeros((*shape, 3 + len(codes)), np.int64)
        for node, place in zip(graph.weights, places.tolist(), strict=True):
            categories[node.index, :, 2] = roles[str(node.role)]
            categories[node.index, :, 3:] = [
                code[part] for code, part in zip(codes, place, strict=True)
            ]
        slots = [node.index for node in dataset.nodes]
        categories[slots, :, 0] = [methods[method] for method, _ in kinds]
        categories[slots, :, 1] = [widths[bits] for _, bits in kinds]
        ratio = 100 * _FLOATING_BYTES * dataset.weights[:, None] / dataset.bytes
        known = np.stack([ratio, 100 * dataset.weight_errors], 2)
        spread = known.std((0, 1))
        numbers = np.zeros((*shape, 2))
        numbers[slots] = known
        numbers = (numbers - known.mean((0, 1))) / np.where(spread > 0, spread, 1.0)
        return cls(
            torch.from_numpy(categories),
            tuple(map(len, (methods, widths, roles, *codes))),
            torch.from_numpy(numbers).float(),
        )

    def taken(self, nodes: Tensor, choices: Tensor) -> tuple[Tensor, Tensor]:
        """Features of some nodes, each under a choice of its own.

        Args:
            nodes: int64 [k], indices of nodes.
            choices: int64 [m, k], indices of formats; anything at combine nodes.

        Returns:
            int64 [m·k, columns] and float32 [m·k, 2], a configuration's nodes side by side.
        """
        place = (nodes * self.categories.shape[1] + choices).flatten()
        return self.categories.flatten(0, 1)[place], self.numbers.flatten(0, 1)[place]


def _places(graph: WeightGraph) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Block codes of all weight nodes, int64 [weight nodes, parts that differ].

    Raises:
        PredictorError: they are not all of one length.
    """
    lengths = {len(node.place) for node in graph.weights}
    if len(lengths) > 1:
        raise PredictorError(
            f"graph: block codes have {sorted(lengths)} parts; expected one number"
        )
    places = np.array([node.place for node in graph.weights], np.int64)
    differs = (places != places[:1]).any(0) if places.size else np.zeros(places.shape[1], bool)
    return places[:, differs]


def _categories(values: Sequence[object]) -> dict[object, int]:
    """Index of each distinct value, in order of the first of its kind."""
    return {value: index for index, value in enumerate(dict.fromkeys(values))}
