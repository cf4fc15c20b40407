"""Names, shapes and dtypes of all that one layer stores, structure by structure.

Tensors are named by their place in the layer: `constant` of the outermost structure, and
`others.constant` of one that its part `others` has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from mezzotint.errors import FormatError
from mezzotint.formats import Shape, TensorSpec
from mezzotint.plan import Choice, LayerShape, Structure, Tensors
from mezzotint.runtime.layer import part_tensors

Structures = tuple[Structure, ...]


@dataclass(frozen=True)
class Place:
    """A structure within a layer.

    Attributes:
        path: of the layer that it makes: empty for the outermost, else the dotted name of a part.
        structure: the structure.
        layer: shape of that layer.
    """

    path: str
    structure: Structure
    layer: LayerShape

    @property
    def depth(self) -> int:
        """Its index among the layer's structures."""
        return len(self.path.split(".")) if self.path else 0


def dotted(path: str, name: str) -> str:
    """The name within a layer of what a part at `path` calls `name`."""
    return f"{path}.{name}" if path else name


def places(structures: Structures, layer: LayerShape, path: str = "") -> Iterator[Place]:
    """Every structure, outermost first.

    Raises:
        PlanError: such a layer cannot have one of them.
    """
    if not structures:
        return
    yield Place(path, structures[0], layer)
    for name, shape in structures[0].part_shapes(layer).items():
        yield from places(structures[1:], shape, dotted(path, name))


def quantizers(
    structures: Structures, layer: LayerShape, path: str = ""
) -> Iterator[tuple[str, LayerShape]]:
    """Name and shape of every quantized layer inside, in the order of their input ranges.

    Raises:
        PlanError: such a layer cannot have one of the structures.
    """
    if not structures:
        yield path, layer
        return
    for name, shape in structures[0].part_shapes(layer).items():
        yield from quantizers(structures[1:], shape, dotted(path, name))


def stored_tensors(choice: Choice, weight_shape: Shape, groups: int = 1) -> dict[str, TensorSpec]:
    """Names, shapes and dtypes of everything a layer stores under `choice`, but its bias.

    Raises:
        PlanError: such a layer cannot have one of the structures.
    """
    layer = LayerShape(weight_shape, groups)
    found = structure_tensors(choice.structures, layer)
    for (path, shape), each in zip(
        quantizers(choice.structures, layer), choice.of_quantizers, strict=True
    ):
        specs = part_tensors(each, shape.weight)
        found |= {dotted(path, name): spec for name, spec in specs.items()}
    return found


def structure_tensors(structures: Structures, layer: LayerShape) -> dict[str, TensorSpec]:
    """The structures' own among the `stored_tensors`.

    Raises:
        PlanError: such a layer cannot have one of the structures.
    """
    return {
        dotted(place.path, name): spec
        for place in places(structures, layer)
        for name, spec in place.structure.tensors(place.layer).items()
    }


def placeholders(structures: Structures, layer: LayerShape, x: Tensor) -> dict[str, Tensor]:
    """Calibrated tensors that a layer could have, for timing it on its input `x`.

    Raises:
        PlanError: such a layer cannot have one of the structures.
    """
    return {
        dotted(place.path, name): tensor
        for place in places(structures, layer)
        for name, tensor in place.structure.placeholder(place.layer, x).items()
    }


def calibrated_tensors(
    choice: Choice, weight_shape: Shape, groups: int = 1
) -> dict[str, TensorSpec]:
    """The `stored_tensors` that no weight tells: of structures, and static input ranges.

    Raises:
        PlanError: such a layer cannot have one of the structures.
    """
    layer = LayerShape(weight_shape, groups)
    found: dict[str, TensorSpec] = {}
    for place in places(choice.structures, layer):
        specs = place.structure.tensors(place.layer)
        names = sorted(place.structure.calibrated & specs.keys())
        found |= {dotted(place.path, name): specs[name] for name in names}
    for (path, shape), each in zip(
        quantizers(choice.structures, layer), choice.of_quantizers, strict=True
    ):
        specs, without = (part_tensors(one, shape.weight) for one in (each, each.of_weight))
        found |= {dotted(path, name): specs[name] for name in specs if name not in without}
    return found


def check_calibrated(choice: Choice, layer: LayerShape, tensors: Tensors) -> None:
    """Raise FormatError unless `tensors` has all that the structures need calibrated.

    Raises:
        PlanError: such a layer cannot have one of the structures.
    """
    for place in places(choice.structures, layer):
        for name, spec in place.structure.calibrated_tensors(place.layer).items():
            _check(place, name, spec, tensors.get(dotted(place.path, name)))


def _check(place: Place, name: str, spec: TensorSpec, tensor: Tensor | None) -> None:
    kind, full = place.structure.kind, dotted(place.path, name)
    if tensor is None:
        raise FormatError(
            f"{kind} needs its calibrated {full}: apply the plan to a pipeline, which calibrates, "
            f"or leave {kind} out"
        )
    found = TensorSpec.of(tensor)
    if found != spec:
        raise FormatError(
            f"{kind} needs {full} as {spec.dtype} of shape {spec.shape}, not {found.dtype} of "
            f"shape {found.shape}"
        )
    place.structure.check_tensor(name, tensor)
