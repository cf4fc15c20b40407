"""Graph networks of all folds: scores, seeds, switches, files."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mezzotint.errors import PredictorError, UsageError
from mezzotint.predictors import Ensemble, ResidualEnsemble, ensemble_files, folds_of
from mezzotint.predictors.network_model import hop_weight
from mezzotint.predictors.subgraph import Subgraph
from tests.predictors.conftest import SHORT
from tests.predictors.planted import FORMATS, dataset_of, transformer


def test_predictions_have_a_mean_and_a_spread(ensemble, dataset):
    mean, spread = ensemble.predict(dataset.configurations)
    assert mean.shape == spread.shape == (40,)
    assert (spread > 0).all()


def test_no_configurations_have_no_predictions(ensemble):
    assert ensemble.predict(np.zeros((0, 8), int)).mean.shape == (0,)


def test_each_label_is_judged_by_the_model_that_never_saw_it(ensemble, dataset):
    evidence, fitted = ensemble.evidence, ensemble.fitted
    for fold, (model, scale) in enumerate(zip(fitted.models, fitted.scales, strict=True)):
        rows = evidence.fold == fold
        found = scale.restored(model.predict(dataset.configurations[rows]))
        np.testing.assert_array_equal(evidence.predicted[rows], found)


def test_a_test_part_weighs_stops_and_scales_nothing(ensemble, dataset, model):
    values = dataset.values.copy()
    test = ensemble.evidence.fold == 3
    values[test] = values[test][::-1]
    again = Ensemble.fit(replace(dataset, values=values), model[1], SHORT)
    before, after = ensemble.fitted.models[3], again.fitted.models[3]
    assert ensemble.fitted.scales[3] == again.fitted.scales[3]
    for name in ("means", "spreads", "weights"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    np.testing.assert_array_equal(
        after.predict(dataset.configurations), before.predict(dataset.configurations)
    )
    others = (ensemble.fitted.models[0], again.fitted.models[0])
    assert not np.array_equal(*(each.predict(dataset.configurations) for each in others))


def test_a_seed_decides_every_bit(ensemble, dataset, model):
    torch.manual_seed(7)  # whatever the caller drew before
    again = Ensemble.fit(dataset, model[1], SHORT)
    np.testing.assert_array_equal(
        again.predict(dataset.configurations), ensemble.predict(dataset.configurations)
    )
    other = Ensemble.fit(dataset, model[1], replace(SHORT, seed=1))
    assert not np.array_equal(other.fitted.models[0].means, ensemble.fitted.models[0].means)


def test_fitting_leaves_the_callers_random_numbers_alone(dataset, model):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    Ensemble.fit(dataset, model[1], replace(SHORT, epochs=1))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "changed",
    [{"loss": "none"}, {"loss": "spearman"}, {"oversample": 3}, {"reverse": True}, {"batch": 8}],
    ids=str,
)
def test_every_switch_of_training_changes_the_plan(ensemble, dataset, model, changed):
    other = Ensemble.fit(dataset, model[1], replace(SHORT, **changed))
    pairs = (other.op_scores(), ensemble.op_scores())
    assert not np.allclose(*pairs)


def test_reversed_the_worst_labels_are_best(dataset, model):
    found = Ensemble.fit(dataset, model[1], replace(SHORT, reverse=True))
    worst = dataset.configurations[dataset.values.argmax()]
    np.testing.assert_array_equal(found.evidence.best, worst)
    np.testing.assert_array_equal(found.evidence.targets, dataset.values)


def block_of(model, kind):
    return next(block for block in model[1] if block.kind == kind)


def test_a_blocks_own_score_is_its_score_in_the_whole_graph():
    # Two blocks, so that the second one's surroundings go far beyond it.
    graph, blocks = transformer(2)
    dataset = dataset_of(graph, 30)
    ensemble = Ensemble.fit(dataset, blocks, replace(SHORT, epochs=1))
    row = dataset.configurations[0]
    for block in blocks:
        places = [[node.index for node in graph.weights].index(each) for each in block.weights]
        own = ensemble.block_scores(block, row[places][None], row)
        whole = 0.0
        for model in ensemble.fitted.models:
            topology = model.network.topology
            scores = model.scores(
                topology.whole, topology.expanded(row[None]), block.root, block.hops
            )
            whole += scores[0]
        np.testing.assert_allclose(own, whole, rtol=1e-4, atol=1e-5)


def test_a_score_is_the_norm_in_spreads_times_the_weight_of_its_hop(ensemble, model):
    block = block_of(model, "self_attention")
    variants = np.array([[0, 1, 2, 3], [5, 5, 5, 5]])
    expected = np.zeros(2)
    for each in ensemble.fitted.models:
        topology = each.network.topology
        rows = np.repeat(ensemble.evidence.best[None], 2, 0)
        rows[:, [1, 2, 3, 4]] = variants
        with torch.no_grad():
            hops = each.network.embeddings(topology.whole, topology.expanded(rows), 4)
        norm = hops[3][:, block.root].sum(1).double().numpy()
        expected += (norm - each.means[3]) / each.spreads[3] * each.weights[3]
    np.testing.assert_allclose(ensemble.block_scores(block, variants), expected, rtol=1e-4)


def test_norms_are_measured_over_all_nodes_of_all_fitted_graphs(ensemble, dataset):
    fold = folds_of(dataset.configurations, 5, 0)[0]
    model = ensemble.fitted.models[0]
    topology = model.network.topology
    with torch.no_grad():
        hops = model.network.embeddings(
            topology.whole, topology.expanded(dataset.configurations[fold.train]), 4
        )
    for hop, each in enumerate(hops):
        norms = each.sum(2).double().numpy()
        assert model.means[hop] == pytest.approx(norms.mean(), rel=1e-5)
        assert model.spreads[hop] == pytest.approx(norms.std(), rel=1e-5)


def test_many_variants_are_scored_a_few_at_a_time(ensemble, model, monkeypatch):
    block = block_of(model, "self_attention")
    variants = np.stack(np.unravel_index(np.arange(6**4), (6,) * 4), 1)
    whole = ensemble.block_scores(block, variants)
    sizes = []
    kept = Subgraph.batched

    def watching(self, count):
        sizes.append(count * len(self.nodes))
        return kept(self, count)

    monkeypatch.setattr("mezzotint.predictors.network_model._NODES", 700)
    monkeypatch.setattr(Subgraph, "batched", watching)
    np.testing.assert_allclose(ensemble.block_scores(block, variants), whole, rtol=1e-4, atol=1e-5)
    assert max(sizes) <= 700
    assert len(set(whole)) > 6**3


def test_scores_of_single_choices_are_those_of_blocks_without_hops(ensemble, model):
    scores = ensemble.op_scores()
    assert scores.shape == (8, 6)
    block = next(block for block in model[1] if block.hops == 0)
    found = ensemble.block_scores(block, np.arange(6)[:, None])
    np.testing.assert_allclose(found, scores[0], rtol=1e-4, atol=1e-5)


def test_weights_of_other_blocks_take_the_best_labelled_choice(ensemble, model, dataset):
    block = block_of(model, "self_attention")  # sees the layer that feeds it
    assert 0 in block.members
    assert 0 not in block.weights
    variants = np.zeros((1, 4), int)
    found = ensemble.block_scores(block, variants)
    best = ensemble.evidence.best
    np.testing.assert_array_equal(found, ensemble.block_scores(block, variants, best))
    other = best.copy()
    other[0] = (best[0] + 1) % 6
    assert ensemble.block_scores(block, variants, other) != found
    np.testing.assert_array_equal(best, dataset.configurations[dataset.values.argmin()])


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        (np.zeros((3, 2), int), r"int64 of shape \[3, 2\]; expected .* 4 weights"),
        (np.zeros((3, 4)), "float64"),
        (np.full((1, 4), 6), "a format beyond 0 to 5"),
    ],
)
def test_other_variants_are_refused(ensemble, model, variants, message):
    with pytest.raises(PredictorError, match=message):
        ensemble.block_scores(block_of(model, "self_attention"), variants)


def test_a_block_that_is_too_deep_is_refused(ensemble, model):
    deep = replace(model[1][0], hops=5)
    with pytest.raises(PredictorError, match="has 5 hops, the predictor 4"):
        ensemble.block_scores(deep, np.zeros((1, 1), int))


def test_hops_count_by_the_figure_that_is_asked_for():
    targets = np.linspace(0, 50, 20)
    norms = targets + 20 * np.sin(np.arange(20))
    figures = {kind: hop_weight(kind, norms, targets) for kind in ("spearman", "ndcg", "product")}
    assert 0 < figures["spearman"] < 1
    assert figures["product"] == pytest.approx(figures["spearman"] * figures["ndcg"])
    assert hop_weight("spearman", -targets, targets) == 0


@pytest.mark.parametrize("kind", ["ndcg", "product"])
def test_weights_of_hops_change_scores(ensemble, dataset, model, kind):
    other = Ensemble.fit(dataset, model[1], replace(SHORT, hop_weight=kind))
    assert not np.allclose(other.op_scores(), ensemble.op_scores())


def test_without_training_a_residual_predictor_is_the_curve_of_noises(dataset, residual):
    for model in residual.fitted.models:
        added = model.predict(dataset.configurations) - model.prior.predict(dataset.configurations)
        sums = dataset.noises[np.arange(8), dataset.configurations].sum(1)
        order = model.prior.predict(dataset.configurations).argsort()
        np.testing.assert_array_equal(order, (-sums).argsort())
        assert np.abs(added).max() < 25


def test_a_residual_predictor_needs_few_labels():
    graph, blocks = transformer(1)
    few = dataset_of(graph, 40, noise=0.05)
    many = dataset_of(graph, 200, seed=1)
    many = replace(many, bytes=few.bytes, weight_errors=few.weight_errors, noises=few.noises)
    found = ResidualEnsemble.fit(few, blocks, replace(SHORT, epochs=6))
    sums = -few.noises[np.arange(8), many.configurations].sum(1)
    predicted = found.predict(many.configurations).mean
    assert np.corrcoef(predicted.argsort().argsort(), sums.argsort().argsort())[0, 1] > 0.9


@pytest.mark.parametrize("kind", [Ensemble, ResidualEnsemble], ids=lambda kind: kind.kind)
def test_a_saved_predictor_is_the_same_bit_for_bit(request, kind, tmp_path, dataset, model):
    saved = request.getfixturevalue("ensemble" if kind is Ensemble else "residual")
    saved.save(tmp_path / "predictor")
    found = kind.load(tmp_path / "predictor")
    for ours, theirs in (
        (found.predict(dataset.configurations), saved.predict(dataset.configurations)),
        (found.op_scores(), saved.op_scores()),
        *((vars(found.evidence)[name], each) for name, each in vars(saved.evidence).items()),
    ):
        np.testing.assert_array_equal(ours, theirs)
    block = block_of(model, "self_attention")
    variants = np.zeros((1, 4), int)
    assert found.block_scores(block, variants) == saved.block_scores(block, variants)
    assert found.space == saved.space
    assert found.fitted.options == SHORT
    assert found.space.formats == FORMATS


@pytest.fixture
def folder(ensemble, tmp_path):
    ensemble.save(tmp_path / "predictor")
    return tmp_path / "predictor"


def test_another_kind_is_refused(folder):
    with pytest.raises(PredictorError, match="is a predictor 'network', not 'residual'"):
        ResidualEnsemble.load(folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("version", 2, "field version"),
        ("extra", 1, "field extra"),
        ("options", {"loss": "mse"}, "field options: loss: is 'mse'"),
        ("options", {"depth": 2}, "field options: .*depth"),
        ("folds", [], "field folds: expected 5"),
        ("sizes", [1, 1, 1, 1], "categories holds an index out of range"),
        ("ranked", [True], "means is torch.float64"),
        ("keys", ["a"], "slots is torch.int64 of shape"),
        ("nodes", 3, "categories is torch.int64"),
        ("formats", ["a", "b"], "categories is torch.int64"),
    ],
)
def test_a_changed_record_is_refused(folder, field, value, message):
    path = folder / "predictor.json"
    record = json.loads(path.read_text()) | {field: value}
    path.write_text(json.dumps(record))
    with pytest.raises(PredictorError, match=message):
        Ensemble.load(folder)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("folds/0/network/encoder.mixed.0.weight", lambda t: t * float("nan"), "holds NaN"),
        ("folds/1/costs", lambda t: t[:, :1].clone(), "folds/1/costs is .* expected"),
        ("edges", lambda t: t + 100, "edges holds an index out of range"),
        ("edges", lambda t: t.int(), "edges is torch.int32"),
        ("evidence/targets", lambda t: t[1:].clone(), "evidence/targets is"),
        ("evidence/fold", lambda t: t - 1, "evidence/fold holds an index out of range"),
        ("pools/2", None, "pools/2 is missing"),
        ("folds/4/means", None, "folds/4/means is missing"),
    ],
)
def test_changed_tensors_are_refused(folder, name, change, message):
    tensors = load_file(folder / "predictor.safetensors")
    found = tensors.pop(name)
    if change is not None:
        tensors[name] = change(found)
    save_file(tensors, folder / "predictor.safetensors")
    with pytest.raises(PredictorError, match=message):
        Ensemble.load(folder)


def test_unknown_tensors_are_refused(folder):
    tensors = load_file(folder / "predictor.safetensors")
    save_file(tensors | {"own": torch.ones(1)}, folder / "predictor.safetensors")
    with pytest.raises(PredictorError, match="own is unknown"):
        Ensemble.load(folder)


@pytest.mark.parametrize("name", ["predictor.json", "predictor.safetensors"])
def test_a_truncated_or_missing_file_is_named(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(PredictorError, match=name):
        Ensemble.load(folder)
    path.unlink()
    with pytest.raises(PredictorError, match=name):
        Ensemble.load(folder)


def test_a_folder_of_something_else_is_left_alone(ensemble, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something else than a predictor"):
        ensemble.save(tmp_path / "notes")
    assert (tmp_path / "notes" / "a.txt").read_text() == "mine"


def test_a_full_disk_leaves_nothing_behind(ensemble, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(ensemble_files, "write_tensors", full)
    with pytest.raises(PredictorError, match=r"cannot be written .*no space left"):
        ensemble.save(tmp_path / "predictor")
    assert not list(tmp_path.iterdir())
