"""Quantizing models that do not fit into memory: from disk to disk, or computed from disk."""

from mezzotint.checkpoint.streaming.packed_checkpoint import (
    PackedCheckpoint,
    PlanWithCalls,
    Storage,
    quantize_checkpoint,
)
from mezzotint.checkpoint.streaming.streamed_denoiser import load_streamed

__all__ = [
    "PackedCheckpoint",
    "PlanWithCalls",
    "Storage",
    "load_streamed",
    "quantize_checkpoint",
]
