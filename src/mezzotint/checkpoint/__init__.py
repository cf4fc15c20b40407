"""Quantized models on disk: saved and loaded through diffusers, or packed from disk to disk."""

from mezzotint.checkpoint.diffusers import (
    MezzotintConfig,
    MezzotintMethod,
    MezzotintQuantizer,
    mark_quantized,
    register_with_diffusers,
)
from mezzotint.checkpoint.save import (
    MEASUREMENTS_FILE,
    TRAINING_FILE,
    check_apart,
    check_replaceable,
    read_plan,
    save_pipeline,
)

__all__ = [
    "MEASUREMENTS_FILE",
    "TRAINING_FILE",
    "MezzotintConfig",
    "MezzotintMethod",
    "MezzotintQuantizer",
    "check_apart",
    "check_replaceable",
    "mark_quantized",
    "read_plan",
    "register_with_diffusers",
    "save_pipeline",
]
