"""Floating-point parameters kept as integers of the same width.

Loaders and `module.to(dtype)` cast every floating tensor of a model; scales must not change with
them. Stored as integers they pass through untouched, bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

_INTEGER_OF = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


def integer_dtype(dtype: torch.dtype) -> torch.dtype:
    """The integer dtype that `as_bits` returns for a floating `dtype`."""
    return _INTEGER_OF[dtype]


def as_bits(values: Tensor) -> Tensor:
    """Reinterpret a floating tensor as integers, same shape."""
    return values.contiguous().view(_INTEGER_OF[values.dtype])


def from_bits(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Reinterpret what `as_bits` returned, as float32 values."""
    return bits.view(dtype).float()
