"""transformers' view of packed text encoders: quantizer, saving."""

from mezzotint.checkpoint.transformers.quantizer import (
    MezzotintTextQuantizer,
    mark_transformers_model,
)

__all__ = ["MezzotintTextQuantizer", "mark_transformers_model"]
