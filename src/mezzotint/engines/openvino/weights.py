"""A packed weight as nodes of an OpenVINO graph: integers where there is an integer form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops
from torch import Tensor

from mezzotint.formats import LookupSegment, Segment
from mezzotint.runtime import PackedWeight

_SEVEN_BITS = 64
"""Signed codes up to here: two of their products with 8-bit inputs add up within 16 bits."""


@dataclass(frozen=True)
class IntegerWeight:
    """w = scale · (codes - zero_point), over groups of consecutive columns.

    Attributes:
        codes: uint8 [rows, groups, columns of a group].
        scale: float32 [rows, groups, 1].
        zero_point: float32 [rows, groups, 1]; whole, but for rows of two levels of any value.
        bits: the fewest of 2, 4 and 8 that hold all codes.
    """

    codes: npt.NDArray[np.uint8]
    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.float32]
    bits: int

    @property
    def middle(self) -> float:
        """The zero point of every row where they agree (symmetric formats), or half the range."""
        first = float(self.zero_point.flat[0])
        common = first.is_integer() and bool((self.zero_point == first).all())
        return first if common else float(2 ** (self.bits - 1))

    @property
    def shifted(self) -> bool:
        """True where the zero points differ, as those of asymmetric formats do."""
        return bool((self.zero_point != self.middle).any())

    def signed(self) -> npt.NDArray[np.int8]:
        """The codes less `middle`, which always fit int8."""
        return (self.codes.astype(np.int16) - int(self.middle)).astype(np.int8)

    @property
    def pairs_fit(self) -> bool:
        """True where sums of two products with 8-bit inputs fit 16 bits."""
        return int(np.abs(self.signed().astype(np.int16)).max()) <= _SEVEN_BITS


def integers(weight: PackedWeight) -> IntegerWeight | None:
    """The weight as integers; None where its format has no such form (levels of any value).

    None also where groups do not divide the rows evenly.
    """
    parts = [_segment(segment) for segment in weight.segments if _even(segment)]
    if len(parts) < len(weight.segments):
        return None
    merged = IntegerWeight(
        codes=np.concatenate([part.codes for part in parts]),
        scale=np.concatenate([part.scale for part in parts]),
        zero_point=np.concatenate([part.zero_point for part in parts]),
        bits=max(part.bits for part in parts),
    )
    if weight.order is None:
        return merged
    rows = weight.order.numpy()
    return IntegerWeight(
        merged.codes[rows], merged.scale[rows], merged.zero_point[rows], merged.bits
    )


def _even(segment: Segment) -> bool:
    if isinstance(segment, LookupSegment):
        return segment.integer_bits is not None
    return segment.group_size is None or segment.columns % segment.group_size == 0


def _segment(segment: Segment) -> IntegerWeight:
    rows = segment.shape[0]
    if isinstance(segment, LookupSegment) and segment.two_levels:
        return _two_levels(segment)
    assert segment.scale is not None
    groups = segment.scale.shape[1]
    codes = segment.unpacked().numpy().reshape(rows, groups, -1)

    def spread(tensor: Tensor) -> npt.NDArray[np.float32]:
        """One value for each row and group."""
        values = tensor.float().numpy().reshape(-1, groups, 1)
        return np.ascontiguousarray(np.broadcast_to(values, (rows, groups, 1)))

    scale = spread(segment.scale)
    if isinstance(segment, LookupSegment):
        levels = (segment.levels.numpy().astype(np.int16) + 128).astype(np.uint8)
        return IntegerWeight(levels[0][codes], scale, np.full_like(scale, 128), 8)
    zero_point = segment.zero_point
    if zero_point is not None:
        return IntegerWeight(codes, scale, spread(zero_point), _stored(segment.bits))
    zero = np.full_like(scale, segment.offset)
    if segment.bits == 1:
        # Its zero point of one half is not whole: twice the codes, half the scale.
        return IntegerWeight(codes * 2, scale * np.float32(0.5), zero * 2, _stored(2))
    return IntegerWeight(codes, scale, zero, _stored(segment.bits))


def _two_levels(segment: LookupSegment) -> IntegerWeight:
    """Codes 0 and 2 about the middle of each row's levels."""
    shape = (segment.shape[0], 1, 1)
    middle, half = (each.expand(shape[:2]).reshape(shape).numpy() for each in segment.line)
    codes = segment.unpacked().numpy().reshape(shape[0], 1, -1)
    # Levels that hardly differ are one: no zero point would tell it.
    flat = half <= np.abs(middle) * np.finfo(np.float32).eps
    scale = np.where(flat, np.float32(1), half)
    zero_point = np.where(flat, 0, 1) - middle / scale
    return IntegerWeight(
        np.where(flat, 0, 2 * codes).astype(np.uint8), scale, zero_point.astype(np.float32), 2
    )


def _stored(width: int) -> int:
    return 2 if width <= 2 else 4 if width <= 4 else 8


def compressed(weight: IntegerWeight, shape: tuple[int, ...], lead: int = 1) -> Any:
    """A float32 node of `shape`: unsigned constants of 2, 4 or 8 bits, less zero points, scaled.

    The `lead` first dimensions of `shape` are the rows. OpenVINO keeps such a weight packed in
    memory where a product with it can unpack it on the way.
    """
    held = _held_shape(weight, shape)
    whole = weight.zero_point.astype(np.uint8)
    if bool((whole == weight.zero_point).all()):
        zero_point = ops.convert(_constant(whole, weight, shape, lead), np.float32)
    else:
        zero_point = _constant(weight.zero_point, weight, shape, lead)
    codes = ops.convert(_unsigned(weight, held), np.float32)
    scaled = ops.multiply(
        ops.subtract(codes, zero_point), _constant(weight.scale, weight, shape, lead)
    )
    return _reshaped(scaled, held, shape)


def signed(weight: IntegerWeight, shape: tuple[int, ...], lead: int = 1) -> Any:
    """A node like that of `compressed`, in int8, for one scale per row and zero points that agree.

    The form that 8-bit products want.
    """
    codes = ops.convert(ops.constant(weight.signed().reshape(shape)), np.float32)
    return ops.multiply(codes, _constant(weight.scale, weight, shape, lead))


def _held_shape(weight: IntegerWeight, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the constant: with several groups in a row, these have a dimension of their own."""
    return shape if weight.scale.shape[1] == 1 else weight.codes.shape


def _constant(
    values: npt.NDArray[Any], weight: IntegerWeight, shape: tuple[int, ...], lead: int
) -> Any:
    """One value per row and group, ready to be combined with the codes."""
    if weight.scale.shape[1] == 1:
        values = values.reshape(*shape[:lead], *(1,) * (len(shape) - lead))
    return ops.constant(np.ascontiguousarray(values))


def _unsigned(weight: IntegerWeight, held: tuple[int, ...]) -> Any:
    flat = weight.codes.reshape(-1)
    slots = 8 // weight.bits
    if slots == 1 or flat.size % slots:
        return ops.constant(np.ascontiguousarray(flat.reshape(held)))
    packed = np.zeros(flat.size // slots, np.uint8)
    for slot in range(slots):
        packed |= flat[slot::slots] << (slot * weight.bits)
    tensor = ov.Tensor(ov.Type.u4 if weight.bits == 4 else ov.Type.u2, ov.Shape(list(held)))
    tensor.data.reshape(-1)[:] = packed
    return ov.op.Constant(tensor)


def _reshaped(node: Any, held: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    if held == shape:
        return node
    return ops.reshape(node, ops.constant(np.array(shape, np.int64)), False)
