"""Options: each is checked when it is given."""

import pytest

from mezzotint.errors import UsageError
from mezzotint.predictors import PredictorOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "-fid"}, "unknown name 'fid'"),
        ({"loss": "mse"}, "loss: is 'mse'; it is one of: spearman, lambdarank, both, none"),
        ({"hop_weight": "rho"}, "hop_weight: is 'rho'"),
        ({"reverse": 1}, "reverse: is 1"),
        ({"epochs": 0}, "epochs: is 0; give a whole number of 1 or more"),
        ({"batch": 1}, "batch: is 1"),
        ({"folds": 1}, "folds: is 1"),
        ({"oversample": 0}, "oversample: is 0"),
        ({"oversample": 1.5}, "oversample: is 1.5"),
        ({"seed": -1}, "seed: is -1"),
        ({"seed": 2**32}, "give less than"),
    ],
)
def test_values_out_of_their_domain_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        PredictorOptions(**options)


def test_the_published_ones_are_the_defaults():
    found = PredictorOptions()
    assert (found.batch, found.folds, found.epochs, found.oversample) == (128, 5, 1000, 1)


def test_they_are_json_values():
    assert PredictorOptions(**PredictorOptions(seed=3).to_dict()) == PredictorOptions(seed=3)
