"""First tokens in an OpenVINO graph, compared with those that constants were calibrated for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from openvino import opset13 as ops
from torch import Tensor

from mezzotint.engines.openvino.nodes import integers, part_of
from mezzotint.runtime.token_check import TOLERANCE, KnownTokens


@dataclass(frozen=True, eq=False)
class ComparedTokens:
    """Nodes that say of an input's first tokens what `TokenCheck` does.

    Attributes:
        same: where they are the known ones, [batch, count, 1].
        near: where they are nearer to those than to zero, likewise.
        seen: the input as quantized weights see it, [batch, tokens, features]: differences in the
            places of near tokens.
    """

    same: Any
    near: Any
    seen: Any


class TokenNodes:
    """The comparisons of one graph: one for all layers that read one tensor."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int, bytes], ComparedTokens] = {}

    def compared(self, x: Any, stored: Tensor) -> ComparedTokens:
        """Compare the input `x`, [batch, tokens, features].

        Args:
            x: output of a node.
            stored: known tokens, bfloat16 as int16 bits, [count, features].
        """
        key = x.get_node().get_name(), x.get_index(), stored.numpy().tobytes()
        if key not in self._found:
            self._found[key] = _compared(x, KnownTokens.of(stored))
        return self._found[key]

    @property
    def all_same(self) -> Any | None:
        """A node that is true where all first tokens are known; None where none are compared."""
        if not self._found:
            return None
        each = [
            ops.reduce_logical_and(one.same, integers(0, 1, 2), keep_dims=False)
            for one in self._found.values()
        ]
        found = each[0]
        for other in each[1:]:
            found = ops.logical_and(found, other)
        return found


def _compared(x: Any, known: KnownTokens) -> ComparedTokens:
    count = len(known.values)
    first, others = part_of(x, 0, count, 1), part_of(x, count, None, 1)
    difference = ops.subtract(first, ops.constant(known.values.numpy()[None]))
    weighted = ops.multiply(difference, ops.constant(known.weights.numpy()[None]))
    mean = ops.reduce_mean(ops.multiply(weighted, weighted), integers(2), keep_dims=True)
    same = ops.less_equal(mean, ops.constant(np.float32(TOLERANCE**2)))
    near = ops.less(_squares(difference), _squares(first))
    seen = ops.concat([ops.select(near, difference, first), others], 1)
    return ComparedTokens(same, near, seen)


def _squares(x: Any) -> Any:
    return ops.reduce_sum(ops.multiply(x, x), integers(2), keep_dims=True)
