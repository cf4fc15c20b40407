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
from mezzotint.models import Call, Sampling, find_denoisers, flat_frames, generate, record_calls

#: Prompts whose denoiser calls are replayed for the noise-prediction error.
ERROR_PROMPTS = 32


@dataclass(frozen=True)
class Baseline:
    """A reference pipeline's images and calls, made once and compared with many.

    Attributes:
        pipe: the reference.
        sampling: prompts, seeds and steps of the images.
        images: uint8 [n, H, W, 3], image i from prompt i and seed + i; of videos, all frames, one
            video after another.
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
        few = sampling.part(0, ERROR_PROMPTS)
        images = flat_frames(generated(pipe, sampling, executor))
        return cls(pipe, sampling, images, record_calls(pipe, few), contrastive)

    @property
    def frames(self) -> int | None:
        """Frames of each video; None for pictures."""
        frames = len(self.images) // len(self.sampling)
        return frames if frames > 1 else None

    def of_each(self, figures: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Means over the frames of each video, [n], of figures of all frames; or those of images.

        Raises:
            UsageError: there are not as many figures for each.
        """
        if len(figures) % len(self.sampling):
            raise UsageError(
                f"images: are {len(figures)} for {len(self.sampling)} prompts; give as many of each"
            )
        return np.asarray(figures.reshape(len(self.sampling), -1).mean(1))

    @cached_property
    def features(self) -> npt.NDArray[np.float32]:
        """EfficientNet-Lite0 features of the images, [n, 1280]."""
        return lite0_features(self.images)

    @cached_property
    def texts(self) -> Tensor | None:
        """Contrastive embeddings of the prompts, [n, width]; None where there are no ranks."""
        if self.contrastive is None or self.no_ranks:
            return None
        return self.contrastive.embed_texts(self.sampling.prompts)

    @property
    def no_ranks(self) -> str:
        """Reason for which captions and images are not compared; empty where they are."""
        if not self.sampling.prompts:
            return "the images have no prompts"
        if self.frames is not None:
            return "contrastive models compare prompts with pictures, not with videos"
        return (
            ""
            if self.contrastive is not None
            else "no contrastive model of text and images was given"
        )

    @cached_property
    def first_ranks(self) -> npt.NDArray[np.bool_] | None:
        """Marks of the reference's own images that are nearest to their captions."""
        return self.first_ranks_of(self.images)

    def first_ranks_of(self, images: ImageArray) -> npt.NDArray[np.bool_] | None:
        """Marks of the images that are nearest to their captions, [n]; None where there are none.

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
    for part in find_denoisers(pipe).values():
        engine = engine_of(part).name
        if engine != "torch":
            raise UsageError(
                f"executor: workers compute with torch, and this pipeline with {engine}; use "
                'with_engine(pipe, "torch"), or leave the executor out'
            )
    return generate_with(make, pipe, sampling)
