"""Digests of what decides a bank's tensors: floating weights, and moments of inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mezzotint.rounding import InputMoments
from mezzotint.runtime.lazy_weight import dense


def weight_digest(weight: Tensor) -> str:
    """A hash of a weight: its dtype, shape and values."""
    digest = hashlib.sha256(f"{weight.dtype} {tuple(weight.shape)}".encode())
    digest.update(_bytes(weight))
    return digest.hexdigest()[:16]


def moments_digest(moments: Mapping[str, Sequence[InputMoments]]) -> str:
    """A hash of the moments of layers' inputs.

    Of the Gram matrices the diagonals are looked at, without which no other calls come.
    """
    digest = hashlib.sha256()
    for name, parts in moments.items():
        digest.update(name.encode())
        for part in parts:
            digest.update(f" {part.count}".encode())
            digest.update(_bytes(part.mean))
            for block in part.blocks:
                digest.update(_bytes(block.diagonal(dim1=-2, dim2=-1)))
    return digest.hexdigest()[:16]


def _bytes(tensor: Tensor) -> bytes:
    tensor = dense(tensor.detach()).cpu().contiguous()
    return tensor.flatten().view(torch.uint8).numpy().tobytes()
