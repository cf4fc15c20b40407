"""Quantizing models that do not fit into memory, from disk to disk."""

from mezzotint.checkpoint.streaming.packed_checkpoint import (
    PackedCheckpoint,
    PlanWithCalls,
    Storage,
    quantize_checkpoint,
)

__all__ = ["PackedCheckpoint", "PlanWithCalls", "Storage", "quantize_checkpoint"]
