"""Measuring, layer by layer, what fewer bits cost; journaled and resumable."""

from mezzotint.sensitivity.images import (
    ImageReference,
    ImageScores,
    Similarity,
    float_images,
    measure_images,
    measure_unit_images,
    noise_floor,
)
from mezzotint.sensitivity.journal import Journal, discard_journal
from mezzotint.sensitivity.measure import (
    Measured,
    Measurements,
    Score,
    check_weights,
    fingerprint,
    measure,
    measure_unit,
    relative_noise,
)
from mezzotint.sensitivity.replay import CACHE_BYTES, Replay
from mezzotint.sensitivity.ssim import global_ssim
from mezzotint.sensitivity.units import Unit, changed_layer

__all__ = [
    "CACHE_BYTES",
    "ImageReference",
    "ImageScores",
    "Journal",
    "Measured",
    "Measurements",
    "Replay",
    "Score",
    "Similarity",
    "Unit",
    "changed_layer",
    "check_weights",
    "discard_journal",
    "fingerprint",
    "float_images",
    "global_ssim",
    "measure",
    "measure_images",
    "measure_unit",
    "measure_unit_images",
    "noise_floor",
    "relative_noise",
]
