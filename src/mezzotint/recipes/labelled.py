"""Labels of a model as recipes use them: numbers, the bank that they are of, and the blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from mezzotint.bank import Bank
from mezzotint.errors import LabelError
from mezzotint.labels import Labels
from mezzotint.labels.header import BANK_FOLDER
from mezzotint.measuring import model_digest
from mezzotint.models import Block, Sampling, WeightGraph, blocks_of
from mezzotint.plan.sampling import SamplingModel
from mezzotint.predictors import Dataset
from mezzotint.recipes.search_space import Floats, Group, Rows, SearchSpace


@dataclass(frozen=True, eq=False)
class LabelledModel:
    """A model of which configurations were labelled.

    Attributes:
        folder: of the labels.
        labels: as they were read.
        bank: the layers in all formats that were labelled.
        dataset: configurations and their labels; noises where they are known.
        blocks: of its graph that have a weight with a choice, in the order of `space.groups`.
        space: its weights, formats and blocks.
    """

    folder: Path
    labels: Labels
    bank: Bank
    dataset: Dataset
    blocks: tuple[Block, ...]
    space: SearchSpace

    @property
    def sampling(self) -> Sampling:
        """Prompts, seeds and steps of the labels' images or calls."""
        found = self.labels.context["sampling"]
        if found is None:
            raise LabelError(f"{self.folder}: says nothing of prompts and seeds; sample anew")
        return SamplingModel.model_validate(found).value()

    def with_noises(self, noises: Floats) -> LabelledModel:
        """The same, with what each choice alone adds to the output, [weights, formats]."""
        return replace(self, dataset=replace(self.dataset, noises=noises))

    def with_labels(self, configurations: Rows, values: Floats) -> LabelledModel:
        """The same with further labels.

        Args:
            configurations: [n, weights].
            values: of the metric, [n].
        """
        dataset = replace(
            self.dataset,
            configurations=np.concatenate((self.dataset.configurations, configurations)),
            values=np.concatenate((self.dataset.values, values)),
        )
        return replace(self, dataset=dataset)

    def best_within(self, most: int) -> Rows | None:
        """The labelled configuration of the least metric that stores so many bytes at most."""
        fits = self.space.stored(self.dataset.configurations) <= most
        if not fits.any():
            return None
        values = np.where(fits, self.dataset.values, np.inf)
        return np.asarray(self.dataset.configurations[int(values.argmin())])


def labelled_model(folder: str | Path, denoiser: nn.Module | None = None) -> LabelledModel:
    """Read a labels folder.

    Args:
        folder: as `mezzotint sample` makes it.
        denoiser: that the labels have to be of; None where nothing is packed after them.

    Raises:
        LabelError: the folder holds no labels, or damaged ones, or those of another model.
        BankError: the labels are of other weights than the denoiser has; a layer is named.
        PredictorError: a label is not a number.
    """
    folder = Path(folder)
    labels = Labels.read(folder)
    bank = Bank.open(folder / BANK_FOLDER)
    if denoiser is not None:
        bank.check(denoiser)
        if labels.context["weights"] != model_digest(denoiser):
            raise LabelError(f"{folder}: holds labels of another model; name another folder")
    graph = labels.graph
    order = {key: position for position, key in enumerate(labels.keys)}
    keys = tuple(node.key for node in graph.weights if node.key in order)
    places = [order[key] for key in keys]
    dataset = Dataset(
        graph,
        labels.formats,
        labels.configurations[:, places],
        labels.values,
        np.asarray(labels.bytes[places], dtype=np.float64),
        labels.weight_errors[places],
    )
    blocks, groups = choosing_blocks(graph, keys)
    sizes = {node.key: node.weights for node in graph.weights}
    space = SearchSpace(
        keys,
        labels.formats,
        np.asarray(labels.bytes[places], dtype=np.int64),
        np.array([sizes[key] for key in keys], dtype=np.int64),
        groups,
    )
    return LabelledModel(folder, labels, bank, dataset, blocks, space)


def choosing_blocks(
    graph: WeightGraph, keys: tuple[str, ...]
) -> tuple[tuple[Block, ...], tuple[Group, ...]]:
    """The blocks that have weights with a choice, and the groups of those weights.

    Args:
        graph: of the model.
        keys: of the weights that have a choice.
    """
    places: Mapping[str, int] = {key: place for place, key in enumerate(keys)}
    node_of = {node.index: node.key for node in graph.weights}
    blocks, groups = list[Block](), list[Group]()
    for block in blocks_of(graph):
        members = tuple(places[node_of[i]] for i in block.weights if node_of[i] in places)
        if members:
            blocks.append(block)
            groups.append(Group(f"{block.kind} {block.name}", members))
    return tuple(blocks), tuple(groups)
