"""Saving and loading through diffusers."""

from mezzotint.hub.checkpoint import (
    MEASUREMENTS_FILE,
    check_replaceable,
    read_plan,
    save_pipeline,
)
from mezzotint.hub.config import MezzotintConfig, MezzotintMethod
from mezzotint.hub.quantizer import MezzotintQuantizer, mark_quantized, register_with_diffusers

__all__ = [
    "MEASUREMENTS_FILE",
    "MezzotintConfig",
    "MezzotintMethod",
    "MezzotintQuantizer",
    "check_replaceable",
    "mark_quantized",
    "read_plan",
    "register_with_diffusers",
    "save_pipeline",
]
