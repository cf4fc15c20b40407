"""The function that stands for torch's `scaled_dot_product_attention` in a denoiser."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from mezzotint.runtime.attention.call import plain_call
from mezzotint.runtime.attention.times import Times
from mezzotint.runtime.attention.ways import TORCH, WAYS

FEW = 1 << 16
"""Below so many scores torch serves: nothing is to be gained that a call would show."""


def attention(  # noqa: PLR0913, PLR0917  (torch's own signature)
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention of plain tensors on the processor, in the fastest way; else torch's own.

    Arguments and result are those of `torch.nn.functional.scaled_dot_product_attention`. Where
    gradients are wanted, or a compiler, tracer or mode follows, that function is called.
    """
    if not dropout_p and query.numel() * key.shape[-2] >= FEW * query.shape[-1]:
        call = plain_call(query, key, value, attn_mask, is_causal, scale, enable_gqa)
        if call is not None and (way := Times.here().way(call)) != TORCH:
            return WAYS[way](call)
    return functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attn_mask,
        dropout_p=dropout_p,
        is_causal=is_causal,
        scale=scale,
        enable_gqa=enable_gqa,
    )


def attention_of_tokens(  # noqa: PLR0913, PLR0917  (the signature of diffusers' back ends)
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention of operands [batch, tokens, heads, features], as diffusers' back ends are given.

    A mask [batch, keys] holds for all heads and queries.
    """
    if attn_mask is not None and attn_mask.shape == (len(query), key.shape[1]):
        attn_mask = attn_mask[:, None, None]
    query, key, value = (each.transpose(1, 2) for each in (query, key, value))
    options = dropout_p, is_causal, scale, enable_gqa
    return attention(query, key, value, attn_mask, *options).transpose(1, 2)
