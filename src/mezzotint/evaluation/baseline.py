"""Images and calls of the original pipeline, made once for many comparisons."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from diffusers import DiffusionPipeline
from torch import Tensor

from mezzotint.engines import engine_of
from mezzotint.errors import UsageError
from mezzotint.evaluation._images import ImageArray
from mezzotint.evaluation.alignment import Contrastive, first_ranks
from mezzotint.evaluation.features import lite0_features
from mezzotint.measuring import ExecutorFactory, chosen_executor, generate_with
from mezzotint.models import Call, Sampling, find_denoiser, generate, record_calls

#: Prompts whose denoiser calls are replayed for the noise-prediction error.
ERROR_PROMPTS = 32


@dataclass(frozen=True)
class Baseline:
    """A reference pipeline's images and calls, made once and compared with many.

    Attributes:
        pipe: the reference.
        sampling: prompts, seeds and steps of the images.
        images: uint8 [n, H, W, 3], image i from prompt i and seed + i.
        calls: denoiser calls of the first prompts.
        contrastive: text and image encoders for the R-precision, where there are some.
    """

    pipe: DiffusionPipeline
    sampling: Sampling
    images: ImageArray
    calls: tuple[Call, ...]
    contrastive: Contrastive | None = None

    @classmethod
    def of(
        cls,
        pipe: DiffusionPipeline,
        sampling: Sampling,
        contrastive: Contrastive | None = None,
        *,
        executor: str | ExecutorFactory | None = None,
    ) -> Baseline:
        """Generate the images of `pipe`, with an executor as `evaluate`, and record its calls."""
        few = Sampling(
            prompts=sampling.prompts[:ERROR_PROMPTS],
            seed=sampling.seed,
            steps=sampling.steps,
            guidance=sampling.guidance,
            batch=sampling.batch,
        )
        images = generated(pipe, sampling, executor)
        return cls(pipe, sampling, images, record_calls(pipe, few), contrastive)

    @cached_property
    def features(self) -> npt.NDArray[np.float32]:
        """EfficientNet-Lite0 features of the images, [n, 1280]."""
        return lite0_features(self.images)

    @cached_property
    def texts(self) -> Tensor | None:
        """Contrastive embeddings of the prompts, [n, width]; None without encoders."""
        if self.contrastive is None:
            return None
        return self.contrastive.embed_texts(self.sampling.prompts)

    @cached_property
    def first_ranks(self) -> npt.NDArray[np.bool_] | None:
        """Marks of the reference's own images that are nearest to their captions."""
        return self.first_ranks_of(self.images)

    def first_ranks_of(self, images: ImageArray) -> npt.NDArray[np.bool_] | None:
        """Marks of the images that are nearest to their captions, [n]; None without encoders.

        Args:
            images: of any pipeline on the same sampling, uint8 [n, H, W, 3].
        """
        if self.contrastive is None or self.texts is None:
            return None
        embedded = self.contrastive.embed_images(images)
        return first_ranks(embedded, self.texts, captions=self.sampling.prompts)


def generated(
    pipe: DiffusionPipeline, sampling: Sampling, executor: str | ExecutorFactory | None
) -> ImageArray:
    """Images of a pipeline, made by an executor or here, uint8 [n, H, W, 3].

    Raises:
        UsageError: an executor is to compute with another engine than torch.
    """
    make = chosen_executor(executor)
    if make is None:
        return generate(pipe, sampling)
    engine = engine_of(find_denoiser(pipe)[1]).name
    if engine != "torch":
        raise UsageError(
            f"executor: workers compute with torch, and this pipeline with {engine}; use "
            'with_engine(pipe, "torch"), or leave the executor out'
        )
    return generate_with(make, pipe, sampling)
