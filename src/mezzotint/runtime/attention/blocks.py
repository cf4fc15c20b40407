"""Attention in plain torch: some queries of one head at a time.

Torch's own function on processors multiplies bfloat16 no faster than float32. Products of plain
matrices use the processor's bfloat16 instructions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mezzotint.runtime.attention.call import AttentionCall

_QUERIES = 256
"""Queries at a time: their scores stay in the cache."""

_COARSE = 16.0
"""Scores up to this magnitude may be rounded to bfloat16: the output errs by less than a hundredth
of its root mean square."""


@torch.no_grad()
def attend_in_blocks(call: AttentionCall) -> Tensor:
    """Attention [batch, heads, queries, values], in the dtype of the query.

    float32 and float16 are computed in float32. Of bfloat16 both products are in bfloat16, and the
    scores between them where they are small.
    """
    out = call.empty_output()
    batch, heads, queries, _ = call.query.shape
    shared = heads // call.key.shape[1]
    for index in range(batch):
        for head in range(heads):
            query = call.query[index, head]
            key, value = (each[index, head // shared] for each in (call.key, call.value))
            coarse = query.dtype == torch.bfloat16 and _largest(query, key, call.scale) <= _COARSE
            value = value.float() if value.dtype == torch.float16 else value
            if not coarse:
                query, key = query.float(), key.float()
            for first in range(0, queries, _QUERIES):
                rows = slice(first, min(first + _QUERIES, queries))
                # A causal block looks at no later keys.
                seen = min(rows.stop, len(key)) if call.causal else len(key)
                mask = None if call.mask is None else call.mask[index, head, rows]
                if call.causal:
                    mask = torch.ones(rows.stop - first, seen, dtype=torch.bool).tril(first)
                scores = (query[rows] * call.scale) @ key[:seen].t()
                probabilities = _probabilities(scores, mask).to(value.dtype)
                out[index, head, rows] = probabilities @ value[:seen]
    return out


def _largest(query: Tensor, key: Tensor, scale: float) -> float:
    """No score of a head is of greater magnitude; NaN where an operand holds one."""
    lengths = [
        torch.linalg.vector_norm(each, dim=-1, dtype=torch.float32).max() for each in (query, key)
    ]
    return float(lengths[0] * lengths[1]) * math.fabs(scale)


def _probabilities(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over keys; zeros for queries that attend to nothing, as torch gives them."""
    if mask is None:
        return torch.softmax(scores, -1)
    if mask.dtype == torch.bool:
        # Added and not filled in: NaN stays NaN, as in torch.
        mask = torch.zeros(mask.shape).masked_fill_(~mask, -math.inf)
    return torch._safe_softmax(scores.float() + mask, -1)
