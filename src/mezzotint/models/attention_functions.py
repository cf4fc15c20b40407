"""Torch's attention functions, and which tensors they are given for which purpose."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from mezzotint.models.graph import Shape

_SIGNATURES = {
    # Written in C++, which tells no signature.
    "scaled_dot_product_attention": inspect.signature(
        lambda query, key, value, attn_mask=None, dropout_p=0, is_causal=False, **rest: None
    ),
    "multi_head_attention_forward": inspect.signature(functional.multi_head_attention_forward),
}

ATTENTION = frozenset(_SIGNATURES)
"""Functions that multiply queries by keys, and the scores by values."""


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One call of an attention function.

    Attributes:
        tensors: those among its arguments, by name.
        scores: shape of the products of queries and keys.
    """

    tensors: Mapping[str, Tensor]
    scores: Shape

    @classmethod
    def of(cls, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> AttentionCall:
        """The call with these arguments of the function of that name, one of `ATTENTION`."""
        given = _SIGNATURES[name].bind(*args, **kwargs).arguments
        tensors = {key: value for key, value in given.items() if isinstance(value, Tensor)}
        query, key = tensors["query"].shape, tensors["key"].shape
        if name == "scaled_dot_product_attention":  # [..., tokens, features]
            return cls(tensors, (*query[:-1], key[-2]))
        batch = query[1:-1]  # [tokens, batch, features], or without a batch
        return cls(tensors, (*batch, given["num_heads"], query[0], key[0]))
