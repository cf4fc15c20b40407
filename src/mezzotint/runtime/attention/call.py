"""One call of attention, checked and in one form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.overrides import has_torch_function

_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """Operands of attention, on the processor, that nothing but their values is asked of.

    Attributes:
        query: [batch, heads, queries, features], bfloat16, float16 or float32; any strides.
        key: [batch, key heads, keys, features], of the query's dtype. The heads of queries are a
            multiple of those of keys, each of which serves as many neighbours.
        value: [batch, key heads, keys, values], of the query's dtype.
        mask: broadcast to [batch, heads, queries, keys], with strides of 0 where it is repeated:
            bool, True where keys are attended to; or floating, added to the scores; None for none.
        causal: query i attends to no key after i.
        scale: of the scores.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    causal: bool
    scale: float

    def empty_output(self) -> Tensor:
        """Memory for the output [batch, heads, queries, values], the heads of a query together."""
        batch, heads, queries, _ = self.query.shape
        out = self.query.new_empty(batch, queries, heads, self.value.shape[3])
        return out.transpose(1, 2)


def plain_call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> AttentionCall | None:
    """The call, where it is one of plain tensors on the processor; None where torch must serve.

    That is: where gradients are wanted, where a tracer, a compiler or a mode follows what is
    computed, and for all that torch refuses or broadcasts.
    """
    if _is_followed(query, key, value, attn_mask):
        return None
    if not (query.ndim == key.ndim == value.ndim == 4 and query.dtype in _DTYPES):
        return None
    if not query.dtype == key.dtype == value.dtype:
        return None
    batch, heads, queries, features = query.shape
    key_heads, keys = key.shape[1:3]
    shared = heads % key_heads == 0 if enable_gqa and key_heads else heads == key_heads
    if not shared or key.shape != (batch, key_heads, keys, features):
        return None
    if value.shape[:3] != key.shape[:3] or 0 in (*query.shape, *key.shape, *value.shape):
        return None
    if attn_mask is not None:
        if is_causal or attn_mask.dtype not in (torch.bool, torch.float32, query.dtype):
            return None
        try:
            attn_mask = attn_mask.expand(batch, heads, queries, keys)
        except RuntimeError:
            return None
    scale = 1 / math.sqrt(features) if scale is None else scale
    return AttentionCall(query, key, value, attn_mask, is_causal, scale)


def _is_followed(*operands: Tensor | None) -> bool:
    """True where more than values is asked of the operands, or some are not on the processor."""
    tensors = [each for each in operands if each is not None]
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return True
    if has_torch_function(tensors) or torch._C._len_torch_dispatch_stack():
        return True
    if (
        torch.autograd.forward_ad._current_level >= 0
        or torch._C._functorch.peek_interpreter_stack()
    ):
        return True
    if any(type(each) not in (Tensor, torch.nn.Parameter) for each in tensors):
        return True
    if any(each.device.type != "cpu" or each.is_sparse for each in tensors):
        return True
    return torch.is_grad_enabled() and any(each.requires_grad for each in tensors)
