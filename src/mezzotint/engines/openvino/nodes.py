"""Small pieces of OpenVINO graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
from openvino import opset13 as ops
from torch import Tensor


def integers(*values: int) -> Any:
    """An int64 constant [len(values)]."""
    return ops.constant(np.array(values, np.int64))


def part_of(x: Any, start: int, stop: int | None, dim: int) -> Any:
    """`x[start:stop]` along dimension `dim`; None for all that follows."""
    end = np.iinfo(np.int64).max if stop is None else stop
    return ops.slice(x, integers(start), integers(end), integers(1), integers(dim))


def with_bias(y: Any, bias: Tensor | None, dim: int) -> Any:
    """`y` plus the bias along dimension `dim`, which is negative."""
    if bias is None:
        return y
    values = bias.detach().float().numpy().reshape(-1, *(1,) * (-dim - 1))
    return ops.add(y, ops.constant(np.ascontiguousarray(values)))
