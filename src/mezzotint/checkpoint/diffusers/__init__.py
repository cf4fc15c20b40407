"""diffusers' and peft's view of packed models: configuration, quantizer, adapters."""

from mezzotint.checkpoint.diffusers.config import MezzotintConfig, MezzotintMethod
from mezzotint.checkpoint.diffusers.quantizer import (
    MezzotintQuantizer,
    mark_diffusers_model,
    register_with_diffusers,
)

__all__ = [
    "MezzotintConfig",
    "MezzotintMethod",
    "MezzotintQuantizer",
    "mark_diffusers_model",
    "register_with_diffusers",
]
