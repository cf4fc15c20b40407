"""Scores of blocks by a graph network, for variants of the weights that have a choice."""

from __future__ import annotations

import numpy as np

from mezzotint.predictors import Ensemble
from mezzotint.recipes.labelled import LabelledModel
from mezzotint.recipes.qua2sedimo.around import Fronts
from mezzotint.recipes.qua2sedimo.published import BlockScoring
from mezzotint.recipes.qua2sedimo.variants import best_variants
from mezzotint.recipes.search_space import Floats, Group, Rows


def block_scoring(labelled: LabelledModel, ensemble: Ensemble) -> BlockScoring:
    """Scores of variants of a group, by those of its block.

    Weights of the block that have no choice are in none of the group's variants, nor do they
    matter: they have the same features whatever is chosen.
    """
    block_of = dict(zip(labelled.space.groups, labelled.blocks, strict=True))
    key_of = {node.index: node.key for node in labelled.dataset.graph.weights}
    places = {key: place for place, key in enumerate(labelled.space.keys)}

    def score(group: Group, variants: Rows) -> Floats:
        block = block_of[group]
        columns = [places.get(key_of[index]) for index in block.weights]
        own = [member for member in columns if member is not None]
        given = np.zeros((len(variants), len(columns)), dtype=np.int64)
        given[:, [member is not None for member in columns]] = variants[
            :, [group.members.index(member) for member in own]
        ]
        return np.asarray(ensemble.block_scores(block, given))

    return score


def fronts_by_score(labelled: LabelledModel, ensemble: Ensemble) -> Fronts:
    """The Pareto front by score of each large block; made once."""
    made: dict[str, Rows] = {}
    score = block_scoring(labelled, ensemble)

    def front(group: Group) -> Rows:
        if group.name not in made:
            found = best_variants(labelled.space, group, lambda variants: score(group, variants))
            made[group.name] = found.thinned().formats
        return made[group.name]

    return front
