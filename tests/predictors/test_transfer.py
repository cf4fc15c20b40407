"""Transfer: effects by role of one model order the labels of another."""

import numpy as np
import pytest

from mezzotint.errors import PredictorError
from mezzotint.models import Role
from mezzotint.predictors import PredictorOptions, RidgeOnChoices, RoleEffects
from mezzotint.predictors.figures import spearman
from tests.predictors.planted import FORMATS, dataset_of, transformer

SMALL, LARGE = (dataset_of(transformer(blocks)[0], 150, seed=blocks) for blocks in (1, 3))


def effects_of(dataset):
    """Change of the prediction for each choice of each layer alone."""
    found = RidgeOnChoices.fit(dataset, (), PredictorOptions())
    start = found.evidence.best
    nodes = len(start)
    rows = np.repeat(start[None], nodes * 6, 0)
    rows[np.arange(nodes * 6), np.arange(nodes * 6) // 6] = np.arange(nodes * 6) % 6
    return (found.predict(rows).mean - found.predict(start[None]).mean).reshape(nodes, 6)


def test_effects_are_averages_over_the_layers_of_a_role():
    graph = LARGE.graph
    effects = np.random.default_rng(0).random((20, 6))
    table = RoleEffects.of(effects, graph, FORMATS).table
    rows = [i for i, node in enumerate(graph.weights) if node.role == Role.SELF_ATTENTION_K]
    assert len(rows) == 3
    assert table[Role.SELF_ATTENTION_K]["uint3/channel"] == effects[rows, 4].mean()


def test_another_models_labels_are_ordered():
    learned = RoleEffects.of(effects_of(SMALL), SMALL.graph, FORMATS)
    assert spearman(learned.scores(LARGE), -LARGE.values) > 0.5


def test_a_role_that_was_not_learned_counts_by_the_mean():
    table = {Role.INPUT: dict.fromkeys(FORMATS, 1.0), Role.OUTPUT: dict.fromkeys(FORMATS, 3.0)}
    found = RoleEffects(table).scores(SMALL)
    # Six of eight layers are neither input nor output.
    assert found == pytest.approx(np.full(150, 1 + 3 + 6 * 2))


def test_formats_are_found_by_name():
    table = {Role.INPUT: {name: float(index) for index, name in enumerate(reversed(FORMATS))}}
    found = RoleEffects(table).scores(SMALL)
    np.testing.assert_allclose(found, (5 - SMALL.configurations).sum(1))


def test_an_unknown_format_is_named():
    table = {Role.INPUT: dict.fromkeys(FORMATS[1:], 1.0)}
    with pytest.raises(PredictorError, match="effects of kmeans3/channel are unknown"):
        RoleEffects(table).scores(SMALL)
