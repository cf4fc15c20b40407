"""Metrics of labels, by name."""

from __future__ import annotations

from mezzotint.errors import UsageError
from mezzotint.labels.metrics.frechet import FrechetDistance
from mezzotint.labels.metrics.image_label import ImageLabel
from mezzotint.labels.metrics.paired import PairedFeatures
from mezzotint.labels.metrics.user_function import UserFunction
from mezzotint.measuring import Metric, SampleNoise

__all__ = ["FrechetDistance", "ImageLabel", "PairedFeatures", "UserFunction", "label_metric"]

PAIRED, NOISE, FRECHET = "paired", "noise", "fd"


def label_metric(name: str, images: int | None = None) -> Metric:
    """The metric of labels called `name`.

    Args:
        name: `paired`, `noise` (on recorded calls), `fd`, or `module:function`.
        images: how many are compared; None for the metric's own number. Without effect on `noise`,
            which sees all recorded calls.

    Raises:
        UsageError: there is none of that name, or it takes more images.
    """
    if name == NOISE:
        return SampleNoise()
    if ":" in name:
        return UserFunction(UserFunction.count if images is None else images, name)
    kinds: dict[str, type[PairedFeatures | FrechetDistance]] = {
        PAIRED: PairedFeatures,
        FRECHET: FrechetDistance,
    }
    if name not in kinds:
        raise UsageError(
            f"metric: there is no {name!r}; use {PAIRED}, {NOISE}, {FRECHET} or module:function"
        )
    return kinds[name]() if images is None else kinds[name](images)
