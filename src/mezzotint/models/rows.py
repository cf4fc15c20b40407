"""Rows of a call: the samples of its batch, and calls of some of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from mezzotint.models.calls import Call, map_tensors

POSITION_ARGUMENTS = frozenset({"img_ids", "txt_ids", "image_rotary_emb"})
"""Keyword arguments of diffusers' transformers for positions, which all samples share."""


def batch_size(call: Call) -> int | None:
    """Samples in the batch of a recorded call; None where its rows cannot be told apart.

    The first dimension of the output is the batch's. Every tensor among the arguments has to have
    the same first dimension, or one of 1, or no dimension at all, and one of them at least has to
    be the samples. A list with an entry per sample, such as some models' image sizes, leaves the
    batch unclear.
    """
    if call.output is None or not call.output.ndim:
        return None
    rows, samples = len(call.output), 0
    if rows == 1:
        return 1
    for leaf in _leaves((call.args, _of_samples(call.kwargs)), rows):
        if not isinstance(leaf, Tensor):
            if len(leaf) == rows:
                return None
        elif leaf.ndim:
            if len(leaf) not in (1, rows):
                return None
            samples += leaf.ndim >= 2 and len(leaf) == rows
    return rows if samples else None


def rows_of(call: Call, indices: Sequence[int]) -> Call:
    """The call of some samples, in the order of `indices`, with copies of their rows.

    Args:
        call: one whose `batch_size` is known.
        indices: rows of its batch, from 0 to below its size.
    """
    assert call.output is not None  # else its batch size were not known
    rows = len(call.output)

    def cut(tensor: Tensor) -> Tensor:
        return tensor[list(indices)] if tensor.ndim and len(tensor) == rows else tensor

    return replace(
        call,
        args=map_tensors(call.args, cut),
        kwargs={**call.kwargs, **map_tensors(_of_samples(call.kwargs), cut)},
        output=cut(call.output),
    )


def _of_samples(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments that may hold a value per sample."""
    return {name: value for name, value in kwargs.items() if name not in POSITION_ARGUMENTS}


def _leaves(value: Any, rows: int) -> Iterator[Tensor | Sequence[Any]]:
    """Tensors in nested lists, tuples and mappings; and lists and tuples without any tensor.

    A list of just `rows` tensors is one, too: they may be the samples.
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item, rows)
    elif isinstance(value, list | tuple):
        inner = [leaf for item in value for leaf in _leaves(item, rows)]
        held = any(isinstance(leaf, Tensor) for leaf in inner)
        samples = isinstance(value, list) and all(isinstance(item, Tensor) for item in value)
        yield from [value] if not held or (samples and len(value) == rows) else inner
