"""Predictors that are fitted once for all tests."""

import pytest

from mezzotint.predictors import Ensemble, PredictorOptions, ResidualEnsemble
from tests.predictors.planted import dataset_of, transformer

#: Enough for every part of training to have run, and no more.
SHORT = PredictorOptions(epochs=3, batch=16)


@pytest.fixture(scope="session")
def model():
    """A graph, and its blocks."""
    return transformer(1)


@pytest.fixture(scope="session")
def dataset(model):
    return dataset_of(model[0], 40)


@pytest.fixture(scope="session")
def ensemble(model, dataset):
    return Ensemble.fit(dataset, model[1], SHORT)


@pytest.fixture(scope="session")
def residual(model, dataset):
    return ResidualEnsemble.fit(dataset, model[1], SHORT)
