"""Ways to compare a changed model with the floating one; one file each."""

from mezzotint.measuring.metrics.image_error import ImageError
from mezzotint.measuring.metrics.metric import (
    Figures,
    Metric,
    Pair,
    Sight,
    chosen_metric,
    metric_named,
    register_metric,
)
from mezzotint.measuring.metrics.noise import Noise, decibels, relative_noise
from mezzotint.measuring.metrics.sample_noise import SampleNoise, sample_noises
from mezzotint.measuring.metrics.similarity import Similarity, global_ssim, similarity_map

__all__ = [
    "Figures",
    "ImageError",
    "Metric",
    "Noise",
    "Pair",
    "SampleNoise",
    "Sight",
    "Similarity",
    "chosen_metric",
    "decibels",
    "global_ssim",
    "metric_named",
    "register_metric",
    "relative_noise",
    "sample_noises",
    "similarity_map",
]
