"""A labelled model without files: a planted truth over the graph of a small transformer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np

from mezzotint.recipes.labelled import LabelledModel, choosing_blocks
from mezzotint.recipes.search_space import SearchSpace
from tests.predictors.planted import dataset_of, transformer


def planted_model(blocks: int = 2, count: int = 120, *, noise: float = 0.0) -> LabelledModel:
    """Labels that add up over layers, but for what neighbours do together."""
    graph, _ = transformer(blocks)
    dataset = dataset_of(graph, count, noise=noise)
    keys = dataset.space.keys
    chosen, groups = choosing_blocks(graph, keys)
    sizes = np.array([node.weights for node in dataset.nodes], dtype=np.int64)
    space = SearchSpace(keys, dataset.formats, dataset.bytes.astype(np.int64), sizes, groups)
    nothing = cast("Any", None)  # neither files nor weights are asked for
    return LabelledModel(Path(), nothing, nothing, dataset, chosen, space)
