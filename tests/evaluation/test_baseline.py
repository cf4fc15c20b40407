"""A baseline's figures are made once, however many pipelines are compared with it."""

import numpy as np
import pytest
import torch

from mezzotint.evaluation import Baseline
from mezzotint.models import Sampling

PROMPTS = ("a red owl", "a green apple", "a blue boat")


class CountingEncoders:
    """Encoders for which picture i belongs to caption i, and which count captions."""

    def __init__(self):
        self.captions = 0

    def embed_texts(self, captions):
        self.captions += len(captions)
        return torch.eye(len(captions))

    def embed_images(self, images):
        return torch.eye(len(images))[images[:, 0, 0, 0].astype(int)]


@pytest.fixture
def baseline():
    images = np.zeros((3, 8, 8, 3), np.uint8)
    images[:, 0, 0, 0] = [0, 1, 2]
    return Baseline(None, Sampling(prompts=PROMPTS), images, (), CountingEncoders())


def test_texts_are_embedded_once_for_all_comparisons(baseline):
    for _ in range(3):
        baseline.first_ranks_of(baseline.images)
    assert baseline.contrastive.captions == len(PROMPTS)


def test_pictures_of_other_captions_are_not_first(baseline):
    swapped = baseline.images[[1, 0, 2]]
    assert baseline.first_ranks.tolist() == [True, True, True]
    assert baseline.first_ranks_of(swapped).tolist() == [False, False, True]


def test_no_encoders_give_no_ranks(baseline):
    without = Baseline(None, baseline.sampling, baseline.images, ())
    assert without.texts is None
    assert without.first_ranks is None
