"""Insights: published findings are judged by the data, and shown with the tables behind them."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from mezzotint.errors import UsageError
from mezzotint.report import (
    Insights,
    ScoredLayers,
    box_plots,
    chosen_bars,
    findings_of,
    render_insights,
    save_insights,
)
from mezzotint.report.findings import difference_of_medians

FORMATS = (
    "kmeans3/channel",
    "kmeans4/channel",
    "kmeans3/tensor",
    "kmeans4/tensor",
    "uint3/channel",
    "uint4/channel",
)
BITS = np.array([3.4, 4.8, 3.01, 4.02, 3.1, 4.1])
SLOPES = {"self_attention_k": 3.0, "self_attention_q": 1.0, "output": 8.0, "time_embedding": 6.0}
TRANSFORMER = (
    *["self_attention_q", "self_attention_k", "self_attention_v", "feed_forward_in"] * 5,
    *["time_embedding"] * 3,
    "output",
)
UNET = (
    *["resnet_conv", "resnet_conv", "self_attention_q", "self_attention_k"] * 5,
    *["time_embedding"] * 3,
    "output",
)


def layers_of(roles=TRANSFORMER, *, k_means=0.0, slopes=SLOPES, folds=5, noise=0.01):
    """A bit more brings each role's slope, K-Means adds so much at equal nominal bits."""
    generator = np.random.default_rng(0)
    nominal = np.array([3, 4, 3, 4, 3, 4])
    bonus = k_means * np.array([1, 1, 1, 1, 0, 0])
    gains = np.array([slopes.get(role, 2.0) for role in roles])
    scores = gains[:, None] * (nominal - 3) + bonus
    scores = scores + noise * generator.normal(size=(folds, *scores.shape))
    count = len(roles)
    return ScoredLayers(
        keys=tuple(f"layer{index}" for index in range(count)),
        roles=tuple(roles),
        blocks=tuple(f"block{index // 4}" for index in range(count)),
        kinds=tuple("self_attention" if index < 20 else "single" for index in range(count)),
        formats=FORMATS,
        scores=scores,
        bytes=np.repeat(BITS[None] * 1000 / 8, count, axis=0),
        weights=np.full(count, 1000.0),
    )


CLAIMS = {
    "channel": "prefer .*K-Means per channel",
    "tensor": "prefer .*K-Means per tensor",
    "residual": "residual blocks",
    "time": "time embedding",
    "queries": "queries",
}


def verdicts(layers, other=None):
    return {
        (name, one.judged_at): one.verdict
        for name, pattern in CLAIMS.items()
        for one in findings_of(layers, other)
        if re.search(pattern, one.claim)
    }


@pytest.mark.parametrize(
    ("k_means", "verdict"), [(1.0, "holds"), (-1.0, "does not hold"), (0.0, "cannot be told")]
)
def test_the_preferred_method_is_told_from_the_scores(k_means, verdict):
    assert verdicts(layers_of(k_means=k_means))["channel", "nominal bits"] == verdict


def test_codebooks_count_at_equal_stored_bits():
    """A codebook per channel alone scores more, but stores more too."""
    layers = layers_of(noise=0.0)
    dear = layers.scores.copy()
    dear[:, :, :2] += 0.15
    found = verdicts(replace(layers, scores=dear))
    assert found["channel", "nominal bits"] == "holds"
    assert found["channel", "stored bits"] == "does not hold"


def test_unets_are_asked_for_the_opposite():
    assert verdicts(layers_of(UNET, k_means=1.0))["channel", "nominal bits"] == "does not hold"


def test_sensitivity_is_compared_by_kind_of_layer():
    sensitive = layers_of(UNET, slopes=SLOPES | {"resnet_conv": 5.0})
    tolerant = layers_of(UNET, slopes=SLOPES | {"resnet_conv": 0.5})
    assert verdicts(sensitive)["residual", "stored bits"] == "holds"
    assert verdicts(tolerant)["residual", "stored bits"] == "does not hold"
    assert verdicts(layers_of())["residual", "nominal bits"] == "cannot be told"


def test_queries_are_compared_with_the_keys_of_their_block():
    assert verdicts(layers_of())["queries", "nominal bits"] == "holds"
    swapped = layers_of(slopes={"self_attention_q": 3.0, "self_attention_k": 1.0})
    assert verdicts(swapped)["queries", "nominal bits"] == "does not hold"


def test_the_time_embedding_is_compared_with_all_others():
    claims = {one.claim: one for one in findings_of(layers_of())}
    found = claims["the time embedding is crucial"]
    assert (found.verdict, found.layers) == ("holds", (3, 21))
    assert found.low <= found.value <= found.high
    assert "[" in found.sentence


def test_two_models_are_compared_by_their_final_layers():
    unet = layers_of(UNET, slopes=SLOPES | {"output": 1.0})
    alone, both = (findings_of(layers_of(), other)[-1] for other in (None, unet))
    assert alone.verdict == "cannot be told"
    assert "--beside" in alone.sentence
    assert f"cannot be told at equal {alone.judged_at}, since" in alone.sentence
    assert both.verdict == "holds"


def test_too_few_layers_tell_nothing():
    found = findings_of(layers_of(TRANSFORMER[:2]))
    assert {one.verdict for one in found} == {"cannot be told"}
    assert all(math.isnan(one.value) for one in found if one.reason)


def test_the_interval_is_over_folds_as_well_as_layers():
    one = np.zeros((2, 6)) + np.array([[0.0], [4.0]])
    _, low, high = difference_of_medians(one, np.zeros((2, 6)), paired=False)
    assert (low, high) == (0.0, 4.0)


def test_scores_that_are_not_finite_are_named():
    layers = layers_of()
    scores = layers.scores.copy()
    scores[1, 2, 3] = np.nan
    with pytest.raises(UsageError, match=r"layer2 at kmeans4/tensor .* fold 1"):
        replace(layers, scores=scores)


@pytest.fixture(scope="module")
def insights() -> Insights:
    layers = layers_of()
    blocks = {name: np.arange(6.0) for name in dict.fromkeys(layers.blocks)}
    chosen = np.arange(len(layers.keys)) % len(FORMATS)
    pictures = (*box_plots(layers, blocks), chosen_bars(layers, chosen, "Chosen at 3.65 bits"))
    return Insights(
        "Insights <script>", "scores of a test", findings_of(layers), pictures, {"labels": 300}
    )


def test_the_page_stands_alone(insights):
    page = render_insights(insights)
    assert "<script" not in page
    assert page.count("<svg") == 4
    loaded = re.findall(r'(?:src|href|xlink:href)="([^"]+)"', page)
    assert all(each.startswith("#") or each.endswith(".csv") for each in loaded)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for one in insights.findings:
        assert one.claim in page


def test_the_same_data_make_the_same_page(insights):
    assert render_insights(insights) == render_insights(insights)


def test_tables_stand_behind_every_picture(insights, tmp_path):
    page = save_insights(insights, tmp_path / "insights")
    files = {path.name for path in page.parent.iterdir()}
    assert files == {"insights.html", "findings.csv"} | {
        f"{picture.name}.csv" for picture in insights.pictures
    }
    with (page.parent / "chosen-by-layer-type.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert sum(float(row[part]) for part in row if part != "group") == pytest.approx(1)
    with (page.parent / "scores-by-block.csv").open() as file:
        first = next(csv.DictReader(file))
    assert (float(first["median"]), int(first["count"])) == (2.5, 6)


def test_a_folder_of_other_things_is_kept(insights, tmp_path):
    (tmp_path / "kept.txt").write_text("kept")
    with pytest.raises(UsageError, match="something else"):
        save_insights(insights, tmp_path)
    assert (tmp_path / "kept.txt").read_text() == "kept"


def test_a_folder_that_is_a_file_is_refused(insights, tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UsageError, match="is a file"):
        save_insights(insights, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"
