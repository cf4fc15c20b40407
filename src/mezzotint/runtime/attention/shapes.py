"""Classes of shapes in which one way of computing attention is the fastest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from mezzotint.runtime.attention.call import AttentionCall

_FEATURES = 16
"""Sizes of heads are told apart by so many features."""

_SAMPLE_QUERIES, _SAMPLE_HEADS = 512, 2
"""Queries of a sample for each thread, and heads: the times of more grow alike."""


@dataclass(frozen=True)
class ShapeClass:
    """Shapes that are decided alike.

    Attributes:
        dtype: of the operands, as `bfloat16`.
        queries: the next power of two.
        keys: the next power of two.
        features: of a head, the next multiple of 16.
        kind: `plain`, `masked` or `causal`.
    """

    dtype: str
    queries: int
    keys: int
    features: int
    kind: str

    @classmethod
    def of(cls, call: AttentionCall) -> Self:
        """The class of a call."""
        queries, features = call.query.shape[2:]
        return cls(
            dtype=str(call.query.dtype).removeprefix("torch."),
            queries=_power(queries),
            keys=_power(call.key.shape[2]),
            features=-(-max(features, call.value.shape[3]) // _FEATURES) * _FEATURES,
            kind="causal" if call.causal else "plain" if call.mask is None else "masked",
        )

    def __str__(self) -> str:
        return f"{self.dtype} {self.queries}x{self.keys}x{self.features} {self.kind}"


def sample_of(call: AttentionCall, threads: int) -> AttentionCall:
    """A part of a call that tells how long ways of computing it take, in their relation."""
    # Later queries of a causal call see more keys: a part of them would tell of another shape.
    most = call.query.shape[2] if call.causal else _SAMPLE_QUERIES * threads
    shared = call.query.shape[1] // call.key.shape[1]

    def part(operand: Tensor, rows: int | None, heads: int) -> Tensor:
        return operand[:1, :heads, :rows]

    heads = min(_SAMPLE_HEADS, call.key.shape[1])
    return AttentionCall(
        query=part(call.query, most, heads * shared),
        key=part(call.key, None, heads),
        value=part(call.value, None, heads),
        mask=None if call.mask is None else part(call.mask, most, heads * shared),
        causal=call.causal,
        scale=call.scale,
    )


def _power(count: int) -> int:
    return 1 << (count - 1).bit_length()
