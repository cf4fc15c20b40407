"""The structures of one layer together: inputs, weights and outputs of its quantizers.

Tensors have their names within the layer, as in `layer_tensors`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from torch import Tensor

from mezzotint.errors import FormatError
from mezzotint.plan import LayerShape, Part, Structure, Tensors
from mezzotint.runtime.layer_tensors import Structures, dotted

QuantizerOutput: TypeAlias = Callable[[Tensor, Tensor | None], Tensor]
"""Output of one quantizer's layer, from its input and its bias."""

_T = TypeVar("_T")


def own_tensors(
    structures: Structures, weight: Tensor, layer: LayerShape, calibrated: Tensors
) -> dict[str, Tensor]:
    """All tensors of the structures of a layer that holds the floating `weight`, on its device.

    What `calibrated` lacks is left out.

    Raises:
        FormatError: what is lacking decides over something that is not.
        PlanError: such a layer cannot have one of the structures.
    """
    if not structures:
        return {}
    outer, inner = structures[0], structures[1:]
    own = _Own({n: calibrated[n].to(weight.device) for n in outer.calibrated if n in calibrated})
    own.update(outer.derived(weight, layer, own))
    found = dict(own)
    if inner:
        weights, shapes = outer.part_weights(weight, layer, own), outer.part_shapes(layer)
        for name in outer.part_names:
            of_part = own_tensors(inner, weights[name], shapes[name], under(calibrated, name))
            found |= {dotted(name, each): tensor for each, tensor in of_part.items()}
    return found


def part_inputs(
    x: Tensor, structures: Structures, layer: LayerShape, tensors: Tensors
) -> tuple[Tensor, ...]:
    """The input of each quantizer of a layer, from the layer's input `x`.

    Args:
        x: input of the layer.
        structures: of the layer.
        layer: its shape.
        tensors: as `own_tensors` gives them.

    Raises:
        PlanError: a structure does not go with such an input.
        FormatError: a tensor is lacking.
    """
    if not structures:
        return (x,)
    outer, shapes = structures[0], structures[0].part_shapes(layer)
    seen = outer.part_inputs(x, layer, at_top(tensors))
    return tuple(
        each
        for name in outer.part_names
        for each in part_inputs(seen[name], structures[1:], shapes[name], under(tensors, name))
    )


def join_inputs(
    x: Tensor,
    inputs: Sequence[Tensor],
    structures: Structures,
    layer: LayerShape,
    tensors: Tensors,
) -> Tensor:
    """The layer's input `x`, but for what its quantizers see, which is `inputs`.

    Raises:
        PlanError, FormatError: as `part_inputs`.
    """
    if not structures:
        return inputs[0]
    outer, inner, own = structures[0], structures[1:], at_top(tensors)
    seen, shapes = outer.part_inputs(x, layer, own), outer.part_shapes(layer)
    joined = {
        name: join_inputs(seen[name], each, inner, shapes[name], under(tensors, name))
        for name, each in _by_part(inputs, outer)
    }
    return outer.join_inputs(x, joined, layer, own)


def part_weights(
    weight: Tensor, structures: Structures, layer: LayerShape, tensors: Tensors
) -> tuple[Tensor, ...]:
    """The floating weight of each quantizer of a layer, from the layer's.

    Raises:
        PlanError, FormatError: as `part_inputs`.
    """
    if not structures:
        return (weight,)
    outer, shapes = structures[0], structures[0].part_shapes(layer)
    weights = outer.part_weights(weight, layer, at_top(tensors))
    return tuple(
        each
        for name in outer.part_names
        for each in part_weights(weights[name], structures[1:], shapes[name], under(tensors, name))
    )


def join_weights(
    weights: Sequence[Tensor], structures: Structures, layer: LayerShape, tensors: Tensors
) -> Tensor:
    """The layer's weight from its quantizers'. Undoes `part_weights`, up to rounding."""
    if not structures:
        return weights[0]
    outer, shapes = structures[0], structures[0].part_shapes(layer)
    joined = {
        name: join_weights(each, structures[1:], shapes[name], under(tensors, name))
        for name, each in _by_part(weights, outer)
    }
    return outer.join_weights(joined, layer, at_top(tensors))


def join_shifts(shifts: Sequence[Tensor], structures: Structures, layer: LayerShape) -> Tensor:
    """The change of the layer's bias, [out], that adds to each quantizer's output its own.

    Raises:
        FormatError: no bias could.
    """
    if not structures:
        return shifts[0]
    outer, shapes = structures[0], structures[0].part_shapes(layer)
    joined = {
        name: join_shifts(each, structures[1:], shapes[name])
        for name, each in _by_part(shifts, outer)
    }
    return outer.join_shifts(joined, layer)


def joined_output(
    x: Tensor,
    outputs: Sequence[QuantizerOutput],
    bias: Tensor | None,
    structures: Structures,
    layer: LayerShape,
    tensors: Tensors,
) -> Tensor:
    """The layer's output of `x`, from those of its quantizers, each of its own input and bias.

    Raises:
        PlanError, FormatError: as `part_inputs`.
    """
    if not structures:
        return outputs[0](x, bias)
    outer, shapes = structures[0], structures[0].part_shapes(layer)

    def part(name: str, each: Sequence[QuantizerOutput]) -> Part:
        rest, shape, own = structures[1:], shapes[name], under(tensors, name)
        return lambda x, /, *_: joined_output(x, each, None, rest, shape, own)

    parts = {name: part(name, each) for name, each in _by_part(outputs, outer)}
    return outer.forward(x, parts, layer, at_top(tensors), bias)


def _by_part(each_of: Sequence[_T], outer: Structure) -> Iterator[tuple[str, Sequence[_T]]]:
    """Each part of a structure with what belongs to the quantizers in it."""
    each = len(each_of) // len(outer.part_names)
    for index, name in enumerate(outer.part_names):
        yield name, each_of[index * each : (index + 1) * each]


def input_of(
    path: str, x: Tensor, structures: Structures, layer: LayerShape, tensors: Tensors
) -> Tensor:
    """The input of the part at `path`, from the layer's input `x`.

    Raises:
        PlanError, FormatError: as `part_inputs`.
    """
    for step in _steps(path, structures, layer, tensors):
        x = step.outer.part_inputs(x, step.layer, step.tensors)[step.part]
    return x


def weight_of(
    path: str, weight: Tensor, structures: Structures, layer: LayerShape, tensors: Tensors
) -> Tensor:
    """The floating weight of the part at `path`, from the layer's.

    Raises:
        FormatError: a tensor is lacking.
    """
    for step in _steps(path, structures, layer, tensors):
        weight = step.outer.part_weights(weight, step.layer, step.tensors)[step.part]
    return weight


@dataclass(frozen=True, eq=False)
class _Step:
    """A step from a layer into one of its parts."""

    outer: Structure
    layer: LayerShape
    tensors: Tensors
    part: str


def _steps(
    path: str, structures: Structures, layer: LayerShape, tensors: Tensors
) -> Iterator[_Step]:
    for outer, part in zip(structures, path.split(".") if path else (), strict=False):
        yield _Step(outer, layer, at_top(tensors), part)
        layer, tensors = outer.part_shapes(layer)[part], under(tensors, part)


class _Own(dict[str, Tensor]):
    """A structure's own tensors; one that has yet to be calibrated is named in an error."""

    def __missing__(self, name: str) -> Tensor:
        raise FormatError(f"{name} has to be calibrated first")


def at_top(tensors: Tensors) -> _Own:
    """The outermost structure's own among the tensors of a layer's structures."""
    return _Own({name: tensor for name, tensor in tensors.items() if "." not in name})


def under(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Tensors of a part of the outermost structure, by their names within it."""
    start = f"{part}."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
