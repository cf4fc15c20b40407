"""diffusers' and peft's view of packed models: configuration, quantizer, adapters."""

from mezzotint.checkpoint.diffusers.config import MezzotintConfig, MezzotintMethod
from mezzotint.checkpoint.diffusers.quantizer import (
    MezzotintQuantizer,
    mark_quantized,
    register_with_diffusers,
)

__all__ = [
    "MezzotintConfig",
    "MezzotintMethod",
    "MezzotintQuantizer",
    "mark_quantized",
    "register_with_diffusers",
]
