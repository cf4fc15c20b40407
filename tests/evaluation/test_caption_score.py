"""The score that says how clearly, and how differently, images can be told apart by captions."""

import pytest
import torch
from torch.nn.functional import normalize

from mezzotint.errors import UsageError
from mezzotint.evaluation import caption_score

COUNT = 20
CAPTIONS = [f"caption {index}" for index in range(COUNT)]


@pytest.fixture(scope="module")
def texts() -> torch.Tensor:
    return torch.eye(COUNT)


def test_images_of_distinct_captions_score_their_number(texts):
    assert caption_score(3 * texts, texts, captions=CAPTIONS) == pytest.approx(COUNT, rel=1e-6)


def test_images_that_all_look_alike_score_one(texts):
    alike = texts[:1].expand(COUNT, -1)
    assert caption_score(alike, texts, captions=CAPTIONS) == pytest.approx(1)


def test_images_that_show_nothing_score_one(texts):
    blank = torch.ones(COUNT, COUNT)
    assert caption_score(blank, texts, captions=CAPTIONS) == pytest.approx(1)


def test_half_as_many_things_score_half_as_much(texts):
    twice = torch.cat([texts[:10], texts[:10]])
    assert caption_score(twice, texts, captions=CAPTIONS) == pytest.approx(10, rel=1e-6)


def test_blur_lowers_it(texts):
    noise = torch.randn(COUNT, COUNT, generator=torch.Generator().manual_seed(0))
    sharp, blurred = (caption_score(normalize(texts + level * noise), texts, captions=CAPTIONS,
                                    scale=10) for level in (0.02, 0.3))  # fmt: skip
    assert 1 < blurred < sharp


def test_a_caption_counts_once_however_often_it_is_asked_for(texts):
    again = texts[[0, 0, 1]]
    score = caption_score(texts[[0, 0, 1]], again, captions=["a", "a", "b"])
    assert score == pytest.approx(3 / 2 ** (2 / 3), rel=1e-6)


@pytest.mark.parametrize(
    ("images", "captions"),
    [(torch.ones(3), ["a"]), (torch.ones(2, 3), ["a"]),
     (torch.full((1, 4), float("nan")), ["a"])],
    ids=["no rows", "another width", "NaN"],
)  # fmt: skip
def test_embeddings_that_do_not_fit_are_refused(images, captions):
    with pytest.raises(UsageError, match="embeddings"):
        caption_score(images, torch.ones(len(captions), 4), captions=captions)
