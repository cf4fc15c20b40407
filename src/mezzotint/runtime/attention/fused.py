"""Attention in C: scores of some queries by some keys at a time, never all of them."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from enum import IntEnum
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from mezzotint.runtime.attention.call import AttentionCall
from mezzotint.runtime.cpu.library import fields, function, library, share
from mezzotint.runtime.cpu.native import DTYPES

_PANEL_BYTES = 32 << 20
"""Keys and values of so many heads are laid out at a time; of one at least."""

_ROWS = 96
"""Queries that the C functions compute together."""

_MASKS = {torch.bool: 1, torch.float32: 2, torch.bfloat16: 3}


class Unit(IntEnum):
    """Vector units that the C functions know, by their number there; later ones are faster."""

    AVX2 = 0
    AVX512 = 1
    AVX512_BF16 = 2


class Attention(ctypes.Structure):
    """A call of attention, or some heads of it; attention.h says what its fields are."""

    _fields_: ClassVar = fields(
        pointers="query key value mask out key_panels value_panels scratch",
        longs="first_head heads heads_per_batch heads_per_key queries keys features values "
        "query_batch query_head query_row key_batch key_head key_row value_batch value_head "
        "value_row out_batch out_head out_row mask_batch mask_head mask_row mask_column",
        ints="dtype mask_kind causal unit",
        floats="scale",
    )


@cache
def units() -> tuple[Unit, ...]:
    """The units that this processor has; none where there are no C functions."""
    if library() is None:
        return ()
    found = function("mz_attention_units")()
    return tuple(unit for unit in Unit if found >> unit & 1)


def unit_for(dtype: torch.dtype) -> Unit | None:
    """The fastest unit for operands of a dtype; None where there is none.

    Products of bfloat16 are of bfloat16 alone: all else is computed in float32.
    """
    able = [unit for unit in units() if dtype == torch.bfloat16 or unit != Unit.AVX512_BF16]
    return able[-1] if able else None


def units_text() -> str:
    """The units in words: `AVX512_BF16 for bfloat16, AVX512 for float32`."""
    chosen = {dtype: unit_for(dtype) for dtype in (torch.bfloat16, torch.float32)}
    found = (
        f"{unit.name} for {str(dtype).removeprefix('torch.')}"
        for dtype, unit in chosen.items()
        if unit is not None
    )
    return ", ".join(found) or "torch's own functions"


def attend_fused(call: AttentionCall, unit: Unit | None = None) -> Tensor:
    """Attention [batch, heads, queries, values], in the dtype of the query.

    The same bits for any number of threads.

    Args:
        call: what is computed.
        unit: by which; by default the fastest for the dtype.
    """
    dtype = call.query.dtype
    if dtype not in DTYPES:
        operands = {name: getattr(call, name).float() for name in ("query", "key", "value")}
        if call.mask is not None and call.mask.dtype not in _MASKS:
            operands["mask"] = call.mask.float()
        return attend_fused(replace(call, **operands), unit).to(dtype)
    unit = unit_for(dtype) if unit is None else unit
    assert unit is not None, "there is no unit"
    query, key, value = (_dense(each) for each in (call.query, call.key, call.value))
    out = call.empty_output()
    work = _work(replace(call, query=query, key=key, value=value), unit)
    work.out = out.data_ptr()
    work.out_batch, work.out_head, work.out_row, _ = out.stride()
    _compute(work, len(query) * key.shape[1])
    return out


def _dense(operand: Tensor) -> Tensor:
    """The operand with the features of a token side by side."""
    return operand if operand.stride(3) == 1 else operand.contiguous()


def _work(call: AttentionCall, unit: Unit) -> Attention:
    query, key, value, mask = call.query, call.key, call.value, call.mask
    _, heads, queries, features = query.shape
    work = Attention(
        query=query.data_ptr(), key=key.data_ptr(), value=value.data_ptr(),
        heads_per_batch=heads, heads_per_key=heads // key.shape[1],
        queries=queries, keys=key.shape[2], features=features, values=value.shape[3],
        dtype=DTYPES[query.dtype], causal=call.causal, unit=unit, scale=call.scale,
    )  # fmt: skip
    work.query_batch, work.query_head, work.query_row, _ = query.stride()
    work.key_batch, work.key_head, work.key_row, _ = key.stride()
    work.value_batch, work.value_head, work.value_row, _ = value.stride()
    if mask is not None:
        work.mask, work.mask_kind = mask.data_ptr(), _MASKS[mask.dtype]
        work.mask_batch, work.mask_head, work.mask_row, work.mask_column = mask.stride()
    return work


def _compute(work: Attention, key_heads: int) -> None:
    """Compute all heads, so many at a time that their panels need not leave the cache at once."""
    scratch, keys, values = (
        function("mz_attention_bytes")(ctypes.byref(work), of) for of in range(3)
    )
    together = max(1, min(key_heads, _PANEL_BYTES // (keys + values)))
    threads = torch.get_num_threads()
    memory = torch.empty(threads * scratch, dtype=torch.uint8, device="cpu")
    panels = torch.empty(together * (keys + values), dtype=torch.uint8, device="cpu")
    work.scratch = memory.data_ptr()
    work.key_panels = panels.data_ptr()
    work.value_panels = panels.data_ptr() + together * keys
    vectors = -(-work.keys // (8 if work.unit == Unit.AVX2 else 16))
    blocks = -(-work.queries // _ROWS)
    for first in range(0, key_heads, together):
        count = min(together, key_heads - first)
        work.first_head, work.heads = first * work.heads_per_key, count * work.heads_per_key
        share("mz_attention_panels", work, count * vectors, threads)
        share("mz_attention", work, work.heads * blocks, threads)
