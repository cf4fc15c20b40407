"""Calls of attention of every kind, and how far from the exact result they may be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""Root mean square of the error, by that of the output."""


@dataclass(frozen=True)
class Kind:
    """Shapes and options of a call.

    Attributes:
        queries: [batch, heads, queries, features].
        keys: [key heads, keys, values]; by default those of the queries.
        options: arguments of `scaled_dot_product_attention`.
        spread: standard deviation of the scores.
        permuted: heads stand behind tokens in memory, as denoisers have them.
    """

    queries: tuple[int, int, int, int]
    keys: tuple[int, int, int] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    spread: float = 1.0
    permuted: bool = True

    def operands(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value: the same numbers every time."""
        batch, heads, queries, features = self.queries
        key_heads, keys, values = self.keys or (heads, queries, features)
        generator = torch.Generator().manual_seed(0)

        def random(heads: int, tokens: int, size: int) -> Tensor:
            shape = (batch, tokens, heads, size) if self.permuted else (batch, heads, tokens, size)
            found = torch.randn(shape, generator=generator).to(dtype)
            return found.transpose(1, 2) if self.permuted else found

        query = random(heads, queries, features) * self.spread
        return query, random(key_heads, keys, features), random(key_heads, keys, values)


def _bool_mask(*shape: int) -> Tensor:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) > 0.3
    mask[..., 0] = True
    return mask


def _additive(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2)) * 2


def _nothing_for_some() -> Tensor:
    mask = _bool_mask(150, 130)
    mask[3], mask[-1] = False, False
    return mask


def _least_for_some() -> Tensor:
    """A mask for a prompt of nothing but padding: these queries attend to all keys alike."""
    mask = _additive(150, 700)
    mask[:, 650:] = torch.finfo(torch.float32).min
    mask[3], mask[-1] = mask[0, -1], mask[0, -1]
    return mask


KINDS = {
    "self": Kind((1, 2, 200, 40)),
    "contiguous": Kind((1, 2, 200, 40), permuted=False),
    "long": Kind((1, 1, 70, 64), (1, 1500, 64)),
    "text": Kind((1, 2, 300, 40), (2, 77, 40)),
    "guidance": Kind((2, 3, 130, 80), (3, 77, 80)),
    "odd features": Kind((1, 1, 100, 37), (1, 111, 23)),
    "large heads": Kind((1, 1, 130, 512)),
    "one query": Kind((1, 2, 1, 64), (2, 500, 64)),
    "one key": Kind((1, 2, 100, 64), (2, 1, 64)),
    "causal": Kind((1, 2, 333, 40), options={"is_causal": True}),
    "causal, fewer keys": Kind((1, 2, 100, 40), (2, 60, 40), {"is_causal": True}),
    "causal, more keys": Kind((1, 2, 60, 40), (2, 700, 40), {"is_causal": True}),
    "grouped": Kind((1, 4, 100, 32), (2, 90, 32), {"enable_gqa": True}),
    "scale": Kind((1, 1, 100, 32), options={"scale": 0.3}),
    "negative scale": Kind((1, 1, 100, 32), options={"scale": -0.3}),
    "large scores": Kind((1, 2, 200, 64), spread=8),
    "bool mask": Kind((1, 2, 150, 40), (2, 130, 40), {"attn_mask": _bool_mask(150, 130)}),
    "mask of keys": Kind((2, 2, 150, 40), (2, 77, 40), {"attn_mask": _bool_mask(2, 1, 1, 77)}),
    "mask of heads": Kind((2, 2, 90, 40), options={"attn_mask": _bool_mask(2, 2, 90, 90)}),
    "transposed mask": Kind((1, 2, 90, 40), options={"attn_mask": _bool_mask(90, 90).t()}),
    "added": Kind((1, 2, 150, 40), (2, 700, 40), {"attn_mask": _additive(150, 700)}),
    "added by heads": Kind((1, 2, 90, 40), options={"attn_mask": _additive(2, 90, 90)}),
    "least number for some": Kind((1, 2, 150, 40), (2, 700, 40), {"attn_mask": _least_for_some()}),
    "no key for some": Kind((1, 2, 150, 40), (2, 130, 40), {"attn_mask": _nothing_for_some()}),
}


def exact(operands: tuple[Tensor, Tensor, Tensor], options: dict[str, Any]) -> Tensor:
    """Attention in float64."""
    mask = options.get("attn_mask")
    if mask is not None and mask.is_floating_point():
        options = options | {"attn_mask": mask.double()}
    return scaled_dot_product_attention(*(each.double() for each in operands), **options)


def error(found: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference, by that of what is expected."""
    difference = (found.double() - expected).square().mean().sqrt()
    return float(difference / expected.square().mean().sqrt())


def call_arguments(options: dict[str, Any]) -> tuple[Any, ...]:
    """Arguments of `plain_call` beside the operands."""
    names = ("attn_mask", "is_causal", "scale", "enable_gqa")
    defaults = (None, False, None, False)
    return tuple(options.get(name, default) for name, default in zip(names, defaults, strict=True))
