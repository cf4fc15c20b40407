"""Quantized models on disk: saved and loaded through diffusers, or packed from disk to disk."""

from mezzotint.checkpoint.diffusers import (
    MezzotintConfig,
    MezzotintMethod,
    MezzotintQuantizer,
    register_with_diffusers,
)
from mezzotint.checkpoint.marking import is_savable, mark_quantized, packed_plans
from mezzotint.checkpoint.save import (
    MEASUREMENTS_FILE,
    TRAINING_FILE,
    check_apart,
    check_replaceable,
    read_plan,
    save_pipeline,
)
from mezzotint.checkpoint.transformers import MezzotintTextQuantizer

__all__ = [
    "MEASUREMENTS_FILE",
    "TRAINING_FILE",
    "MezzotintConfig",
    "MezzotintMethod",
    "MezzotintQuantizer",
    "MezzotintTextQuantizer",
    "check_apart",
    "check_replaceable",
    "is_savable",
    "mark_quantized",
    "packed_plans",
    "read_plan",
    "register_with_diffusers",
    "save_pipeline",
]
