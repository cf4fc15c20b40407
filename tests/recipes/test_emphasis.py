"""What labels tell of each layer's noise, and what recipe auto makes of it."""

from dataclasses import dataclass

import numpy as np
import pytest

from mezzotint.errors import PredictorError
from mezzotint.predictors import PredictorOptions
from mezzotint.recipes.emphasis import LARGEST, emphasis
from mezzotint.recipes.learning import learned
from tests.recipes.planted_model import planted_model


@dataclass
class Known:
    """A predictor of a known truth: each layer's noise counts by a factor of its own."""

    factors: np.ndarray
    noises: np.ndarray
    weighs_alike: bool = False

    def value(self, caution):
        def value(configurations):
            taken = self.noises[np.arange(len(self.noises)), configurations]
            return -(taken * self.factors).sum(axis=1)

        return value


def found_for(labelled, factors, weighs_alike=False):
    known = Known(factors, labelled.dataset.noises, weighs_alike)
    most = int(labelled.space.bytes.max(axis=1).sum())
    return np.array(list(emphasis(labelled, known, most).values()))


def test_each_layer_gets_the_factor_that_was_planted():
    labelled = planted_model()
    factors = np.linspace(0.6, 1.7, len(labelled.space.keys))
    found = found_for(labelled, factors)
    assert found / found.mean() == pytest.approx(factors / factors.mean())


def test_factors_are_bounded():
    labelled = planted_model()
    factors = np.ones(len(labelled.space.keys))
    factors[:2] = 100.0, 0.0
    found = found_for(labelled, factors)
    assert found.min() >= 1 / LARGEST
    assert found.max() <= LARGEST


def test_a_predictor_that_adds_up_noise_changes_nothing():
    labelled = planted_model()
    factors = np.linspace(0.5, 2, len(labelled.space.keys))
    assert set(found_for(labelled, factors, weighs_alike=True)) == {1.0}


def test_a_predictor_that_contradicts_noise_changes_nothing():
    labelled = planted_model()
    assert set(found_for(labelled, -np.ones(len(labelled.space.keys)))) == {1.0}


def test_labels_without_noises_are_told():
    labelled = planted_model()
    found = learned("ridge-choices", labelled.dataset, labelled.blocks, PredictorOptions())
    with pytest.raises(PredictorError, match="noises"):
        emphasis(labelled.with_noises(None), found, 10**9)


@pytest.mark.parametrize(
    ("kind", "alike"), [("bits", True), ("noise", True), ("ridge-noises", False), ("trees", False)]
)
def test_sums_alone_weigh_layers_as_their_noise_does(kind, alike):
    labelled = planted_model()
    found = learned(kind, labelled.dataset, labelled.blocks, PredictorOptions())
    assert found.weighs_alike is alike
