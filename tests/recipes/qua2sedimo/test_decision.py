"""Decisions from labels of a planted truth."""

import dataclasses

import numpy as np
import pytest

import mezzotint as mz
from mezzotint.errors import PredictorError, UsageError
from mezzotint.recipes.qua2sedimo import Qua2SeDiMo
from mezzotint.recipes.qua2sedimo.byte_window import byte_window
from mezzotint.recipes.qua2sedimo.decision import Question, decided
from tests.recipes.planted_model import planted_model

QUICK = {"epochs": 6, "patience": 6}


@pytest.fixture(scope="module")
def labelled():
    return planted_model()


def question(labelled, bits=3.65, **options):
    window = byte_window(labelled.space, bits * int(labelled.space.sizes.sum()) / 8)
    return Question(labelled, window, Qua2SeDiMo(labels="labels", **QUICK | options))


def noise_of(labelled, configuration):
    noises = labelled.dataset.noises
    return noises[np.arange(len(noises)), configuration].sum()


@pytest.mark.parametrize("predictor", ["ridge-choices", "ridge-noises", "noise", "network"])
def test_the_program_meets_the_bits_with_any_predictor(labelled, predictor):
    asked = question(labelled, predictor=predictor)
    found = decided(asked)
    assert asked.window.holds(int(labelled.space.stored(found.configuration)))
    assert found.learned.kind == predictor


def test_the_program_beats_the_best_label_of_as_many_bytes(labelled):
    asked = question(labelled, predictor="ridge-noises")
    best = labelled.best_within(asked.window.most)
    assert noise_of(labelled, decided(asked).configuration) < noise_of(labelled, best)


def test_reverse_finds_a_worse_plan_of_the_same_bits(labelled):
    worst = decided(question(labelled, predictor="ridge-noises", reverse=True)).configuration
    best = decided(question(labelled, predictor="ridge-noises")).configuration
    assert noise_of(labelled, worst) > 1.5 * noise_of(labelled, best)


def test_caution_changes_the_plan():
    labelled = planted_model(count=40, noise=0.5)
    bold, careful = (
        decided(question(labelled, predictor="ridge-choices", caution=caution))
        for caution in (0.0, 4.0)
    )
    assert (bold.configuration != careful.configuration).any()
    assert lower_end(careful) > lower_end(bold)


def lower_end(decision):
    told = decision.context()
    return told["predicted_target"] - 4.0 * told["spread"]


def test_what_is_told_is_predicted_of_the_configuration_itself(labelled):
    found = decided(question(labelled, predictor="ridge-choices"))
    exchanged = dataclasses.replace(found, configuration=labelled.dataset.configurations[0])
    mean, _ = found.learned.predictor.predict(labelled.dataset.configurations[:1])
    assert exchanged.context()["predicted_target"] == mean[0] != found.context()["predicted_target"]


@pytest.mark.parametrize("level", ["op", "block"])
def test_published_levels_stay_within_the_bits(labelled, level):
    asked = question(labelled, level=level, trainings=3)
    found = decided(asked)
    assert labelled.space.stored(found.configuration) <= asked.window.most
    assert "*bits" in found.summary["target"]


def test_oversampling_and_hop_weights_change_the_scores(labelled):
    usual, often, weighed = (
        decided(question(labelled, **options)).learned.predictor.op_scores()
        for options in ({}, {"oversample": 5}, {"hop_weight": "ndcg"})
    )
    assert not np.allclose(usual, often)
    assert not np.allclose(usual, weighed)


@pytest.mark.parametrize("level", ["op", "block"])
def test_published_levels_need_scores(labelled, level):
    with pytest.raises(UsageError, match=r"ridge-choices.* scores no blocks"):
        decided(question(labelled, level=level, predictor="ridge-choices"))


def test_the_best_predictor_is_chosen_by_what_it_knows_beyond_bits(labelled):
    found = decided(question(labelled, predictor="best", epochs=2)).learned
    partial = {name: each["partial"] for name, each in found.figures.items()}
    assert {"bits", "noise", "ridge-noises", "network"} <= partial.keys()
    assert partial[found.kind] == max(partial.values())


def test_too_few_labels_are_told():
    with pytest.raises(PredictorError, match="missing"):
        decided(question(planted_model(count=7), predictor="ridge-choices"))


def test_a_fitted_predictor_is_kept_and_loaded(labelled, tmp_path):
    folder = str(tmp_path / "fitted")
    first, second = (decided(question(labelled, fitted=folder)) for _ in range(2))
    assert (first.configuration == second.configuration).all()
    with pytest.raises(PredictorError, match="other options"):
        decided(question(labelled, fitted=folder, seed=1))
    with pytest.raises(PredictorError, match="other labels"):
        decided(question(planted_model(count=100), fitted=folder))


@pytest.mark.parametrize(
    ("predictor", "told"), [("best", "compares all"), ("ridge-choices", "in no time")]
)
def test_predictors_that_are_not_kept_are_refused_before_any_is_fitted(
    labelled, tmp_path, monkeypatch, predictor, told
):
    monkeypatch.setattr("mezzotint.predictors.Predictor.fit", None)
    with pytest.raises(UsageError, match=told):
        decided(question(labelled, predictor=predictor, fitted=str(tmp_path / "fitted")))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"caution": 1.0, "level": "op"}, "caution"),
        ({"caution": 1.0, "level": "block"}, "caution"),
        ({"rounds": 3, "level": "op"}, "rounds: changes nothing at level 'op'"),
        ({"rounds": 3, "level": "block"}, "rounds: changes nothing at level 'block'"),
        ({"trainings": 3}, "trainings: changes nothing at level 'program'"),
        ({"rounds": 0}, "rounds"),
        ({"trades": -1}, "trades"),
        ({"caution": -0.5}, "caution"),
        ({"caution": float("nan")}, "caution"),
        ({"level": "layer"}, "level"),
        ({"target": "-metric - 2*size"}, "unknown name 'size'"),
        ({"epochs": 0}, "epochs"),
    ],
    ids=str,
)
def test_options_out_of_their_domain_are_named(options, told):
    with pytest.raises(UsageError, match=told):
        Qua2SeDiMo(**options)


def test_the_options_are_public():
    assert mz.Qua2SeDiMo is Qua2SeDiMo
    assert dataclasses.fields(mz.Qua2SeDiMo)[0].name == "labels"
