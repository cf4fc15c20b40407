"""Ways of computing attention, one of which is torch's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from mezzotint.runtime.attention.blocks import attend_in_blocks
from mezzotint.runtime.attention.call import AttentionCall
from mezzotint.runtime.attention.fused import attend_fused, unit_for
from mezzotint.runtime.cpu import processor

TORCH = "torch"
"""The way that serves where no other is faster."""


def attend_by_torch(call: AttentionCall) -> Tensor:
    """Attention by `scaled_dot_product_attention`."""
    return functional.scaled_dot_product_attention(
        call.query,
        call.key,
        call.value,
        attn_mask=call.mask,
        is_causal=call.causal,
        scale=call.scale,
        enable_gqa=call.query.shape[1] != call.key.shape[1],
    )


WAYS: Mapping[str, Callable[[AttentionCall], Tensor]] = MappingProxyType(
    {TORCH: attend_by_torch, "fused": attend_fused, "blocks": attend_in_blocks}
)
"""Name → function of a call that returns [batch, heads, queries, values]."""


def candidates(call: AttentionCall) -> tuple[str, ...]:
    """Names of the ways that may be the fastest for a call on this processor; torch's first."""
    if unit_for(call.query.dtype) is not None:
        return (TORCH, "fused")
    if call.query.dtype == torch.bfloat16 and processor.BFLOAT16:
        return (TORCH, "blocks")
    return (TORCH,)
