"""Layers of any structure, made of plain quantized ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from mezzotint.errors import FormatError
from mezzotint.formats import Shape, TensorSpec
from mezzotint.plan import KINDS, NOW, Choice, Encoding, LayerShape, Tensors
from mezzotint.runtime.layers import FixedGeometry, attributes_of, quant_like, set_attributes
from mezzotint.runtime.packed import PackedLayer, PartCalibration, refuse_tensors
from mezzotint.runtime.part import QuantizedPart
from mezzotint.runtime.timestep import TimestepReader
from mezzotint.runtime.token_check import TokenCheck


class StructuredLayer(PackedLayer):
    """A Linear or Conv2d of the structure that comes first in its choice.

    The parts are submodules under the structure's names for them, and its own tensors are
    buffers; the structure says what comes of them.

    Attributes:
        structure: the structure.
        shape: of the layer.
        reader: tells the timestep to a structure that depends on it.
        token_check: compares first tokens for a structure that knows some.
    """

    reader: TimestepReader
    token_check: TokenCheck

    def __init__(
        self,
        parts: Mapping[str, PackedLayer],
        shape: LayerShape,
        choice: Choice,
        bias: Tensor | None,
    ) -> None:
        """Empty; fill with `load_tensors` and `load_weight`."""
        super().__init__(shape.weight, choice, bias)
        self.structure = choice.structures[0]
        self.shape = shape
        for name, part in parts.items():
            self.add_module(name, part)
        specs = self.structure.tensors(shape)
        self.tensor_names = tuple(specs)
        for name, spec in specs.items():
            self.register_buffer(name, spec.zeros())
        if self.structure.timed:
            self.reader = TimestepReader()
        if self.structure.known_tokens is not None:
            self.token_check = TokenCheck()

    @property
    def named_parts(self) -> dict[str, PackedLayer]:
        """The layers it is made of, by the structure's names."""
        return {name: getattr(self, name) for name in self.structure.part_names}

    @property
    def own_tensors(self) -> dict[str, Tensor]:
        """The tensors that the structure stores beside its parts."""
        return {name: getattr(self, name) for name in self.tensor_names}

    @property
    def _calibrated(self) -> tuple[str, ...]:
        """Names of the tensors of its own that calibration finds."""
        return tuple(self.structure.calibrated_tensors(self.shape))

    @property
    @override
    def parts(self) -> tuple[QuantizedPart, ...]:
        return tuple(each for part in self.named_parts.values() for each in part.parts)

    @override
    def load_tensors(self, tensors: Tensors) -> None:
        for name in self._calibrated:
            stored = name in self.tensor_names
            self.register_buffer(name, tensors[name].detach().clone(), persistent=stored)
        starts = tuple(f"{name}." for name in self.named_parts)
        own = {name for name in tensors if not name.startswith(starts)}
        refuse_tensors(own - self.structure.calibrated)
        for name, part in self.named_parts.items():
            start = f"{name}."
            part.load_tensors(
                {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
            )

    @override
    def load_weight(
        self,
        weight: Tensor,
        encoding: Encoding,
        calibrations: Sequence[PartCalibration],
    ) -> None:
        tensors = {n: self.get_buffer(n).to(weight.device) for n in self._calibrated}
        tensors |= self.structure.derived(weight, self.shape, tensors)
        weights = self.structure.part_weights(weight, self.shape, tensors)
        for name in set(self._calibrated).difference(self.tensor_names):
            delattr(self, name)
            del tensors[name]
        self._check_names_and_types(tensors)
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)
        first = 0
        for name, part in self.named_parts.items():
            last = first + part.choice.parts
            part.load_weight(weights[name], encoding, calibrations[first:last])
            first = last

    def _check_names_and_types(self, tensors: Tensors) -> None:
        """Refuse what would not be found again in a checkpoint."""
        found = {name: TensorSpec.of(tensor) for name, tensor in tensors.items()}
        expected = dict(self.structure.tensors(self.shape))
        if found != expected:
            raise FormatError(
                f"{self.structure.kind} made the tensors {found}, but says that it stores "
                f"{expected}; the structure is at fault"
            )

    @override
    def dequantized_weight(self, dtype: torch.dtype = torch.float32) -> Tensor:
        weights = {n: part.dequantized_weight(dtype) for n, part in self.named_parts.items()}
        return self.structure.join_weights(weights, self.shape, self.own_tensors)

    @override
    def forward(self, input: Tensor) -> Tensor:
        tensors = self.own_tensors
        if self.structure.timed:
            tensors[NOW] = self.reader.timestep
        if self.structure.known_tokens is not None:
            kinds = self.token_check.kinds(input, tensors[self.structure.known_tokens])
            if kinds is not None:
                tensors[KINDS] = kinds
        return self.structure.forward(input, self.named_parts, self.shape, tensors, self.bias)


class StructuredLinear(StructuredLayer, nn.Linear):  # type: ignore[misc, override]  # weight is lazy
    """A Linear of any structure."""

    def __init__(
        self,
        parts: Mapping[str, PackedLayer],
        shape: LayerShape,
        choice: Choice,
        bias: Tensor | None,
    ) -> None:
        """Empty; fill with `load_tensors` and `load_weight`."""
        super().__init__(parts, shape, choice, bias)
        self.out_features, self.in_features = shape.weight


class StructuredConv2d(StructuredLayer, FixedGeometry):  # type: ignore[misc, override]  # weight is lazy
    """A Conv2d of any structure; `set_attributes` gives it its geometry."""


def packed_like(
    layer: nn.Linear | nn.Conv2d, choice: Choice, part: Shape | None = None
) -> PackedLayer:
    """An empty packed layer like `layer`, on its device, or like a part of it, without bias.

    Raises:
        PlanError: such a layer cannot have one of the structures, or a convolution has a padding
            mode of its own.
    """
    if not choice.structures:
        return quant_like(layer, choice, part)
    shape = shape_of(layer) if part is None else LayerShape(part, shape_of(layer).groups)
    parts = {
        name: packed_like(layer, choice.of_part(name), each.weight)
        for name, each in choice.structures[0].part_shapes(shape).items()
    }
    with layer.weight.device:
        if part is not None:
            # No nn.Linear or nn.Conv2d: libraries would take it for a layer beside its own.
            return StructuredLayer(parts, shape, choice, None)
        if isinstance(layer, nn.Linear):
            return StructuredLinear(parts, shape, choice, layer.bias)
        packed = StructuredConv2d(parts, shape, choice, layer.bias)
    set_attributes(packed, shape.weight, attributes_of(layer))
    return packed


def shape_of(layer: nn.Module) -> LayerShape:
    """Shape of a floating Linear or Conv2d."""
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    return LayerShape(tuple(layer.get_parameter("weight").shape), groups)
