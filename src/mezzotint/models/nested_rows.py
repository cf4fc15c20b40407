"""Rows of the tensors, one for each sample, among nested keyword arguments of a denoiser's call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from mezzotint.models.rows import POSITION_ARGUMENTS

Place = tuple[Any, ...]
"""Place of a tensor, or of a list with one for each sample, among nested keyword arguments."""

Rows = list[Tensor]
"""Tensors of all samples at one place, one for each."""

_ROUNDING = 1e-3
"""Greatest relative difference of an embedding that was made in a batch of another size."""


def rows_in(value: Any, path: Place = ()) -> Iterator[tuple[Place, Rows]]:
    """Rows of all tensors, and lists of tensors, in nested values but shared positions."""
    if isinstance(value, Tensor):
        if value.ndim >= 1:
            yield path, list(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if path or key not in POSITION_ARGUMENTS:
                yield from rows_in(item, (*path, key))
    elif isinstance(value, list | tuple):
        if value and all(isinstance(item, Tensor) for item in value):
            yield path, list(value)
            return
        for index, item in enumerate(value):
            yield from rows_in(item, (*path, index))


def with_rows(value: Any, path: Place, rows: Rows) -> Any:
    """Nested values with other rows at a place, in its dtype."""
    if not path:
        if isinstance(value, Tensor):
            return torch.stack(rows).to(value.dtype)
        return type(value)(row.to(old.dtype) for row, old in zip(rows, value, strict=True))
    key, *rest = path
    if isinstance(value, Mapping):
        return {**value, key: with_rows(value[key], tuple(rest), rows)}
    items = list(value)
    items[key] = with_rows(items[key], tuple(rest), rows)
    return type(value)(items)


def differ(left: Rows | None, right: Rows | None) -> bool:
    """True for embeddings that are not the same; other arguments hold no floating numbers."""
    if not left or not right or not left[0].is_floating_point():
        return False
    return len(left) != len(right) or not all(map(close, left, right))


def close(left: Tensor, right: Tensor) -> bool:
    """True for equal tensors, up to the rounding of another batch."""
    if left.shape != right.shape:
        return False
    first, second = left.double(), right.to(left.device).double()
    return bool((first - second).norm() <= _ROUNDING * second.norm())
