import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from mezzotint.errors import ModelError, UsageError
from mezzotint.evaluation import (
    Contrastive,
    embedded_contrastive,
    first_ranks,
    load_contrastive,
    mean_alignment,
    r_precision,
)


def directions(count: int, seed: int = 0) -> torch.Tensor:
    random = torch.randn(count, 64, generator=torch.Generator().manual_seed(seed))
    return normalize(random, dim=-1)


def captions(count: int) -> list[str]:
    return [f"caption {index}" for index in range(count)]


@pytest.fixture
def model(contrastive_folder: Path, pipeline_folder: Path) -> Contrastive:
    return load_contrastive(contrastive_folder, pipeline_folder)


class TestRPrecision:
    def test_perfect_embeddings_score_one(self):
        texts = directions(150)
        result = r_precision(3 * texts, texts, captions=captions(150))
        assert (result.value, result.candidates, result.n) == (1.0, 100, 150)
        assert 0.95 < result.low < 1
        assert result.high == 1.0

    def test_random_embeddings_score_by_chance(self):
        result = r_precision(directions(2000), directions(2000, 1), captions=captions(2000))
        assert 0.003 < result.value < 0.02
        assert result.low < 1 / 100 < result.high

    def test_it_is_the_share_of_first_ranks(self):
        texts = directions(120)
        images = torch.cat([texts[:60], directions(60, 1)])
        first = first_ranks(images, texts, captions=captions(120))
        assert first[:60].all()
        assert first.mean() == r_precision(images, texts, captions=captions(120)).value

    def test_fewer_candidates_are_easier(self):
        texts = directions(300)
        images = texts + 0.5 * directions(300, 1) * 64**0.5
        values = [
            r_precision(images, texts, captions=captions(300), candidates=count).value
            for count in (2, 10, 200)
        ]
        assert values == sorted(values, reverse=True)
        assert values[0] > values[-1]

    def test_equal_captions_are_not_held_against_each_other(self):
        texts = directions(10).repeat(20, 1)
        result = r_precision(texts, texts, captions=captions(10) * 20)
        assert (result.value, result.candidates, result.n) == (1.0, 10, 200)

    def test_a_tie_is_no_success(self):
        texts = torch.ones(20, 4)
        assert r_precision(texts, texts, captions=captions(20)).value == 0.0

    def test_the_draw_depends_on_the_seed_alone(self):
        images, texts = directions(300), directions(300) + 0.3 * directions(300, 1) * 64**0.5
        results = [
            r_precision(images, texts, captions=captions(300), candidates=20, seed=seed)
            for seed in (0, 0, 1)
        ]
        assert results[0] == results[1]
        assert results[0] != results[2]

    @pytest.mark.parametrize(
        ("images", "texts", "names", "message"),
        [
            (directions(3), directions(2), captions(3), "one row"),
            (directions(3), directions(3), captions(2), "2 for 3 images"),
            (directions(3), directions(3), ["owl"] * 3, "too few to rank"),
            (directions(3) * torch.nan, directions(3), captions(3), "NaN"),
        ],
        ids=["shapes", "captions", "one caption", "nan"],
    )
    def test_what_cannot_be_ranked_is_refused(self, images, texts, names, message: str):
        with pytest.raises(UsageError, match=message):
            r_precision(images, texts, captions=names)


class TestMeanAlignment:
    def test_it_is_the_mean_cosine(self):
        texts = directions(4)
        images = texts * torch.tensor([[2.0], [2.0], [2.0], [-2.0]])
        assert mean_alignment(images, texts).value == pytest.approx(0.5)

    def test_its_interval_holds_it(self):
        result = mean_alignment(directions(30), directions(30, 1))
        assert -1 <= result.low < result.value < result.high <= 1


class TestEmbeddings:
    def test_images_have_unit_length(self, model: Contrastive, images: np.ndarray):
        embedded = model.embed_images(images)
        assert embedded.shape == (len(images), 12)
        assert embedded.dtype == torch.float32
        assert embedded.norm(dim=-1).tolist() == pytest.approx([1] * len(images))

    def test_pixels_go_from_minus_one_to_one(self, model: Contrastive):
        levels = np.full((1, 16, 16, 3), 255, np.uint8)
        expected = model.image_encoder(pixel_values=torch.ones(1, 3, 16, 16)).image_embeds
        assert torch.allclose(model.embed_images(levels), normalize(expected), atol=1e-6)

    def test_images_are_resized_to_what_the_encoder_takes(self, model: Contrastive):
        small = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
        constant = np.full((1, 48, 48, 3), 100, np.uint8)
        assert torch.allclose(
            model.embed_images(constant), model.embed_images(constant[:, :16, :16]), atol=1e-5
        )
        assert not torch.allclose(*model.embed_images(small))

    def test_texts_have_unit_length_and_equal_ones_equal_rows(self, model: Contrastive):
        embedded = model.embed_texts(["owl", "red fox", "owl"])
        assert embedded.norm(dim=-1).tolist() == pytest.approx([1, 1, 1])
        assert torch.equal(embedded[0], embedded[2])
        assert not torch.allclose(embedded[0], embedded[1])

    def test_long_captions_are_cut_off(self, model: Contrastive):
        a, b = model.embed_texts(["abcdefghijklmnop", "abcdefghijklmnopq"])
        assert torch.allclose(a, b)

    def test_no_captions_are_refused(self, model: Contrastive):
        with pytest.raises(UsageError, match="captions"):
            model.embed_texts([])


class TestLoading:
    def test_the_embedded_model_serves_64_pixel_images(self, images: np.ndarray):
        model = embedded_contrastive()
        texts = model.embed_texts(["owl, noto style", "red apple, flat style"])
        assert model.image_encoder.config.image_size == images.shape[1]
        assert model.embed_images(images).shape[1] == texts.shape[1]
        assert not model.image_encoder.training

    def test_half_precision_files_are_computed_in_float32(
        self, contrastive_folder: Path, pipeline_folder: Path
    ):
        vision = load_contrastive(contrastive_folder, pipeline_folder).image_encoder
        vision.half().save_pretrained(contrastive_folder / "image_encoder")
        model = load_contrastive(contrastive_folder, pipeline_folder)
        assert {p.dtype for p in model.image_encoder.parameters()} == {torch.float32}

    @pytest.mark.parametrize("part", ["image_encoder", "text_projection.safetensors"])
    def test_a_missing_part_is_named(
        self, part: str, contrastive_folder: Path, pipeline_folder: Path
    ):
        (contrastive_folder / part).rename(contrastive_folder / "elsewhere")
        with pytest.raises(ModelError, match=part):
            load_contrastive(contrastive_folder, pipeline_folder)

    @pytest.mark.parametrize("part", ["text_encoder", "tokenizer"])
    def test_a_missing_text_part_is_named(
        self, part: str, contrastive_folder: Path, pipeline_folder: Path
    ):
        shutil.rmtree(pipeline_folder / part)
        with pytest.raises(ModelError, match=part):
            load_contrastive(contrastive_folder, pipeline_folder)

    def test_a_truncated_file_is_named(self, contrastive_folder: Path, pipeline_folder: Path):
        path = contrastive_folder / "image_encoder" / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(ModelError, match="image_encoder"):
            load_contrastive(contrastive_folder, pipeline_folder)

    def test_parts_of_different_models_are_refused(
        self, contrastive_folder: Path, pipeline_folder: Path
    ):
        config = contrastive_folder / "image_encoder" / "config.json"
        config.write_text(
            config.read_text("utf-8").replace('"projection_dim": 12', '"projection_dim": 5'),
            "utf-8",
        )
        with pytest.raises(ModelError, match="image_encoder"):
            load_contrastive(contrastive_folder, pipeline_folder)

    def test_weights_that_are_not_there_are_no_random_ones(
        self, contrastive_folder: Path, pipeline_folder: Path
    ):
        config = contrastive_folder / "image_encoder" / "config.json"
        layers = '"num_hidden_layers": 1'
        config.write_text(config.read_text("utf-8").replace(layers, layers[:-1] + "2"), "utf-8")
        with pytest.raises(ModelError, match="missing keys"):
            load_contrastive(contrastive_folder, pipeline_folder)
