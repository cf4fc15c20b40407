"""Metrics of labels: values, standard errors, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mezzotint.errors import UsageError
from mezzotint.evaluation import frechet_distance, lite0_features
from mezzotint.labels import FrechetDistance, PairedFeatures, UserFunction, label_metric
from mezzotint.labels.metrics import feature_cache
from mezzotint.measuring import SampleNoise, relative_noise
from tests.labels import user_metrics
from tests.labels.user_metrics import ABSOLUTE


def noise(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 16, 16, generator=generator)


def disturbed(images: torch.Tensor, strength: float) -> torch.Tensor:
    return (images + strength * (noise(len(images), 1) - 0.5)).clamp(0, 1)


def pairs(references: torch.Tensor, images: torch.Tensor, batch: int = 2):
    return zip(references.split(batch), images.split(batch), strict=True)


def as_bytes(images: torch.Tensor) -> np.ndarray:
    return (images.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)


class TestPaired:
    def test_it_is_the_mean_squared_distance_of_features(self):
        references, images = noise(5), disturbed(noise(5), 0.5)
        metric = PairedFeatures(5)
        figures = metric.figures(pairs(references, images))
        before, after = (lite0_features(as_bytes(each)) for each in (references, images))
        squares = np.square(before.astype(np.float64) - after).sum(1)
        assert metric.loss(figures) == pytest.approx(squares.mean(), rel=1e-4)
        expected = squares.std(ddof=1) / math.sqrt(5)
        assert metric.standard_error(figures) == pytest.approx(expected, rel=1e-3)

    def test_it_is_0_for_the_same_images_and_grows_with_their_difference(self):
        references = noise(4)
        found = [
            PairedFeatures(4).figures(pairs(references, disturbed(references, strength)))["paired"]
            for strength in (0.0, 0.2, 1.0)
        ]
        assert found[0] == 0
        assert found[0] < found[1] < found[2]

    def test_features_of_references_are_computed_once(self, monkeypatch):
        seen: list[int] = []
        extract = feature_cache.lite0_features

        def counted(images, *arguments, **options):
            seen.append(len(images))
            return extract(images, *arguments, **options)

        monkeypatch.setattr(feature_cache, "lite0_features", counted)
        references = noise(3, seed=7)
        for strength in (0.1, 0.2):
            PairedFeatures(3).figures(pairs(references, disturbed(references, strength)))
        assert seen == [3, 3, 3]
        PairedFeatures(3).figures(pairs(references.flip(0), references))
        assert len(seen) == 5

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_ruined_model_has_infinite_figures(self, value):
        images = noise(4)
        images[2, 0, 0, 0] = value
        figures = PairedFeatures(4).figures(pairs(noise(4), images))
        assert figures == {"paired": math.inf, "standard error": math.inf}

    def test_the_number_of_images_is_part_of_the_name_and_is_kept(self):
        metric = PairedFeatures(4)
        assert (metric.name, metric.prompts) == ("paired of 4 images", 4)
        assert PairedFeatures().count == 64
        with pytest.raises(UsageError, match="takes 4, but there are prompts for 3"):
            metric.figures(pairs(noise(3), noise(3)))
        with pytest.raises(UsageError, match="paired of 1 is not possible; give 2"):
            PairedFeatures(1)


class TestFrechet:
    @pytest.fixture(autouse=True)
    def few_features(self, monkeypatch):
        """Mean and spread of tiles in place of the network: a thousand images take no time."""

        def tiles(images):
            found = images.unfold(2, 4, 4).unfold(3, 4, 4).mean((-1, -2)).flatten(1)
            return found[:, :6].numpy()

        monkeypatch.setattr("mezzotint.labels.metrics.frechet.features", tiles)
        monkeypatch.setattr("mezzotint.labels.metrics.frechet.reference_features", tiles)
        self.tiles = tiles

    def test_it_is_the_frechet_distance_of_a_thousand_images(self):
        references, images = noise(1000), noise(1000, 3) * 0.9
        figures = FrechetDistance().figures(pairs(references, images, 100))
        expected = frechet_distance(self.tiles(references), self.tiles(images))
        assert figures["fd"] == pytest.approx(expected, rel=1e-9)

    def test_the_standard_error_is_that_of_repetitions(self):
        found = [
            FrechetDistance().figures(
                pairs(noise(1000, 2 * each), noise(1000, 2 * each + 1) * 0.9, 100)
            )
            for each in range(20)
        ]
        spread = np.std([each["fd"] for each in found], ddof=1)
        told = np.mean([each["standard error"] for each in found])
        assert told == pytest.approx(spread, rel=0.5)

    def test_fewer_images_are_refused(self):
        with pytest.raises(UsageError, match="fd of 999 is not possible; give 1,000 or more"):
            FrechetDistance(999)
        with pytest.raises(UsageError, match="takes 1,000, but there are prompts for 998"):
            FrechetDistance().figures(pairs(noise(998), noise(998), 100))


class TestNoise:
    def test_it_is_the_mean_of_samples_with_its_standard_error(self):
        metric = label_metric("noise")
        assert metric == SampleNoise()
        y, y_hat = noise(6), disturbed(noise(6), 0.3)
        figures = metric.figures(pairs(y, y_hat))
        each = relative_noise(y, y_hat).double().numpy()
        assert metric.loss(figures) == pytest.approx(each.mean())
        assert metric.standard_error(figures) == pytest.approx(each.std(ddof=1) / math.sqrt(6))

    def test_one_sample_tells_no_error(self):
        metric = SampleNoise()
        assert metric.standard_error(metric.figures(pairs(noise(1), noise(1)))) is None


class TestUserFunction:
    def test_it_is_the_mean_of_what_the_function_returns(self):
        references, images = noise(4), disturbed(noise(4), 0.5)
        metric = label_metric(ABSOLUTE, 4)
        figures = metric.figures(pairs(references, images))
        each = user_metrics.absolute(references, images).double().numpy()
        assert metric.loss(figures) == pytest.approx(each.mean())
        assert metric.standard_error(figures) == pytest.approx(each.std(ddof=1) / 2)
        assert metric.name == f"{ABSOLUTE} of 4 images"

    def test_it_cannot_change_the_images(self):
        references = noise(2)
        label_metric(f"{user_metrics.__name__}:writing", 2).figures(pairs(references, references))
        assert torch.equal(references, noise(2))

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("mean_only", r"returned numbers of shape \[\] for 4 images; return one for each"),
            ("one_short", r"returned numbers of shape \[3\] for 4 images"),
            ("not_a_number", "returned nan for image 3; return finite numbers"),
            ("failing", "fails .no such network."),
            ("missing", r"cannot be imported .*missing"),
            ("NUMBER", "is a int, not a function"),
        ],
    )
    def test_what_it_does_wrong_is_named(self, name, message):
        metric = label_metric(f"{user_metrics.__name__}:{name}", 4)
        with pytest.raises(UsageError, match=rf"metric \S+:{name}: {message}"):
            metric.figures(pairs(noise(4), noise(4)))

    def test_a_module_that_is_not_there_is_named(self):
        with pytest.raises(UsageError, match="metric no_such:thing: cannot be imported"):
            UserFunction(4, "no_such:thing").figures(pairs(noise(4), noise(4)))


def test_names_that_mean_nothing_are_refused():
    with pytest.raises(UsageError, match="no 'fid'; use paired, noise, fd or module:function"):
        label_metric("fid")
