"""Records of a model that workers are given beside it: calls, calibration, images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ray
from diffusers import DiffusionPipeline
from torch import nn

from mezzotint.measuring.original import Original, OriginalImages
from mezzotint.models import Call, Sampling, on_device


@dataclass(frozen=True)
class Recorded:
    """All of an `Original` but the model, by references to the object store.

    Attributes:
        calls: reference, within a tuple, so that it is not fetched before it is needed.
        calibration: reference, alike.
        images: reference, alike; empty where no task sees images.
        sampling: of the images.
        momentum: of static ranges.
        part: digest of the calls where they are a part.
    """

    calls: tuple[Any, ...]
    calibration: tuple[Any, ...]
    images: tuple[Any, ...]
    sampling: Sampling | None
    momentum: float | None
    part: str | None

    @classmethod
    def of(
        cls,
        original: Original,
        reference: Callable[[object, Callable[[], object]], Any],
        *,
        images: bool,
    ) -> Recorded:
        """The record of a model.

        Args:
            original: the model.
            reference: of an object and a way to make what is sent of it, which is put into the
                object store unless it is there.
            images: whether some task sees images.

        Raises:
            UsageError, ModelError, CalibrationError: as `Original.images`.
        """
        return cls(
            calls=(reference(original.calls, lambda: _on_cpu(original.calls)),),
            calibration=(reference(original.calibration, lambda: original.calibration),),
            images=(
                (reference(original.images, lambda: _packed_images(original.images)),)
                if images
                else ()
            ),
            sampling=original.sampling,
            momentum=original.momentum,
            part=original.part,
        )

    def original(self, denoiser: nn.Module, pipe: DiffusionPipeline | None) -> Original:
        """The `Original` of a worker, around its own model."""
        calls, calibration = ray.get([*self.calls, *self.calibration])
        made = ray.get(list(self.images))
        return Original(
            denoiser,
            on_device(calls, denoiser),
            calibration,
            pipe,
            self.sampling,
            self.momentum,
            self.part,
            replace(made[0], calls=on_device(made[0].calls, denoiser)) if made else None,
        )


def _on_cpu(calls: tuple[Call, ...]) -> tuple[Call, ...]:
    return tuple(call.to("cpu") for call in calls)


def _packed_images(images: OriginalImages) -> OriginalImages:
    return replace(images, calls=_on_cpu(images.calls))
