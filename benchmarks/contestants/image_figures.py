"""Figures of a model's images, against the original's and against real pictures."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import mezzotint as mz
from mezzotint.evaluation import (
    Baseline,
    caption_score,
    contrastive_for,
    evaluate,
    frechet_distance,
    lite0_features,
)
from mezzotint.recipes.default_prompts import default_sampling
from tools.emoji.config import PRESETS
from tools.emoji.data import load_corpus

from .figures import jackknife

SEED = 1000
REAL = 2048
"""Pictures of the corpus that distances to real ones are from."""


def real_features(corpus: Path) -> np.ndarray:
    """EfficientNet-Lite0 features of pictures that the models were trained on."""
    found = load_corpus(corpus, PRESETS["cpu"])
    chosen = np.random.default_rng(0).permutation(found.rows(train=True))[:REAL]
    return lite0_features(found.images[chosen])


class ImageFigures:
    """The original's images, made once for all rows of as many."""

    def __init__(self, pipe: Any, real: np.ndarray | None) -> None:
        """Set up for the original; `real` are features of real pictures."""
        self.pipe, self.real = pipe, real
        self._baselines: dict[int, Baseline] = {}

    def sampling(self, images: int) -> mz.Sampling:
        prompts = default_sampling(self.pipe, images).prompts
        return mz.Sampling(prompts=prompts, seed=SEED, batch=32)

    def baseline(self, images: int) -> Baseline:
        if images not in self._baselines:
            self._baselines[images] = Baseline.of(self.pipe, self.sampling(images), self.contrast)
        return self._baselines[images]

    @cached_property
    def contrast(self) -> Any:
        return contrastive_for(self.pipe)

    def of(self, pipe: Any, images: int) -> dict[str, Any]:
        """Against the original and against real pictures; images are made once for all of it."""
        baseline = self.baseline(images)
        made = baseline.images if pipe is self.pipe else mz.generate(pipe, baseline.sampling)
        features = lite0_features(made)
        evaluation = evaluate(baseline, pipe, images=made)
        score = caption_score(
            self.contrast.embed_images(made), baseline.texts, captions=baseline.sampling.prompts
        )

        def distance(kept: np.ndarray) -> float:
            return frechet_distance(baseline.features[kept], features[kept])

        return evaluation.to_dict() | {
            "fd_interval": jackknife(distance, images),
            "fd_real": None if self.real is None else frechet_distance(self.real, features),
            "caption_score": score,
        }
