"""Layers of more than one quantizer, made of plain ones: constant tokens, split inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from mezzotint.errors import FormatError, PlanError
from mezzotint.formats import MINMAX, RangeSearch, Shape, TensorSpec, as_bits, from_bits
from mezzotint.plan import Choice
from mezzotint.runtime.layer import QuantLayer, part_tensors
from mezzotint.runtime.layers import QuantLinear, quant_like
from mezzotint.runtime.operands import Operation
from mezzotint.runtime.packed import InputRange, PackedLayer, check_input_ranges


def part_inputs(x: Tensor, choice: Choice, operation: Operation) -> tuple[Tensor, ...]:
    """What each quantizer of a layer sees of its input `x`; views of it.

    Raises:
        PlanError: there are constant tokens, and `x` is not [batch, tokens, features] with at
            least as many.
    """
    if choice.constant_tokens:
        if x.ndim != 3 or x.shape[1] < choice.constant_tokens:
            raise PlanError(
                f"an input of shape {tuple(x.shape)} met a layer of constant tokens, which takes "
                f"[batch, tokens, features] with {choice.constant_tokens} tokens or more; leave "
                "constant_tokens out for it"
            )
        return (x[:, choice.constant_tokens :],)
    if choice.split:
        dim, size = operation.channel_dim, choice.split
        return x.narrow(dim, 0, size), x.narrow(dim, size, x.shape[dim] - size)
    return (x,)


def part_shapes(choice: Choice, weight_shape: Shape) -> tuple[Shape, ...]:
    """The shape of each part of a weight [out, in, …].

    Raises:
        PlanError: the split lies outside the input channels.
    """
    if not choice.split:
        return (weight_shape,)
    outputs, inputs, *kernel = weight_shape
    if choice.split >= inputs:
        raise PlanError(
            f"split is {choice.split}, but there are {inputs} input channels; give a number "
            "below that, or leave split out"
        )
    return (outputs, choice.split, *kernel), (outputs, inputs - choice.split, *kernel)


def stored_tensors(choice: Choice, weight_shape: Shape) -> dict[str, TensorSpec]:
    """Names, shapes and dtypes of everything a layer stores under `choice`, but its bias.

    Raises:
        PlanError: the split lies outside the input channels.
    """
    shapes = part_shapes(choice, weight_shape)
    if choice.constant_tokens:
        constant = TensorSpec((choice.constant_tokens, weight_shape[0]), torch.int32)
        return {"constant": constant} | _named("others", choice, weight_shape)
    if choice.split:
        return _named("first", choice, shapes[0]) | _named("second", choice, shapes[1])
    return part_tensors(choice, weight_shape)


def _named(part: str, choice: Choice, weight_shape: Shape) -> dict[str, TensorSpec]:
    tensors = part_tensors(choice, weight_shape)
    return {f"{part}.{name}": spec for name, spec in tensors.items()}


def check_constant(choice: Choice, out_features: int, constant: Tensor | None) -> None:
    """Raise FormatError unless `constant` is what a layer of constant tokens puts out for them."""
    count = choice.constant_tokens
    if not count:
        return
    if constant is None:
        raise FormatError(
            f"constant_tokens {count} needs the layer's calibrated output for them: apply the plan "
            "to a pipeline, which calibrates, or leave constant_tokens out"
        )
    if tuple(constant.shape) != (count, out_features):
        raise FormatError(
            f"constant_tokens {count} needs an output of shape {(count, out_features)}, "
            f"not {tuple(constant.shape)}"
        )
    if not bool(torch.isfinite(constant).all()):
        raise FormatError("the constant output holds NaN or infinite values")


class ConstantTokens(PackedLayer):
    """A Linear over [batch, tokens, in_features] whose first outputs are known beforehand.

    `constant` is the output of the floating layer for them, bias included: float32 as int32 bits,
    [constant_tokens, out_features]. `others` computes all other tokens. MixDQ (arXiv 2405.17873),
    BOS-aware quantization.
    """

    def __init__(self, others: QuantLinear, choice: Choice, bias: Tensor | None) -> None:
        """Empty; fill with `load_weight` and `load_constant`."""
        super().__init__(others.weight_shape, choice, bias)
        self.others = others
        shape = (choice.constant_tokens, others.out_features)
        self.register_buffer("constant", torch.zeros(shape, dtype=torch.int32))

    @classmethod
    def like(cls, layer: nn.Linear, choice: Choice) -> ConstantTokens:
        """An empty layer of the same geometry, on the same device."""
        others = QuantLinear.like(layer, choice.plain, tuple(layer.weight.shape))
        with layer.weight.device:
            return cls(others, choice, layer.bias)

    @property
    @override
    def parts(self) -> tuple[QuantLinear, ...]:
        return (self.others,)

    @override
    def load_weight(
        self, weight: Tensor, search: RangeSearch = MINMAX, ranges: Sequence[InputRange] = ()
    ) -> None:
        self.others.load_weight(weight, search, ranges)

    def load_constant(self, constant: Tensor | None) -> None:
        """Store the output for the constant tokens, floating [constant_tokens, out_features].

        Raises:
            FormatError: it is missing, of another shape, or not finite.
        """
        check_constant(self.choice, self.others.out_features, constant)
        assert constant is not None
        held = self.get_buffer("constant").device
        exact = constant.detach().to(held, torch.float32, copy=True)
        self.register_buffer("constant", as_bits(exact))

    def constant_output(self) -> Tensor:
        """Float32 [constant_tokens, out_features]."""
        return from_bits(self.get_buffer("constant"), torch.float32)

    @override
    def forward(self, x: Tensor) -> Tensor:
        (rest,) = part_inputs(x, self.choice, self.others.operation)
        constant = self.constant_output().to(x.dtype).expand(x.shape[0], -1, -1)
        return torch.cat([constant, _biased(self.others(rest), self.bias, -1)], 1)


class SplitLayer(PackedLayer):
    """A Linear or Conv2d with one quantizer for its first input channels, one for the others.

    y = W₁x₁ + W₂x₂ + b. MixDQ (arXiv 2405.17873), shortcut splitting.
    """

    def __init__(
        self, first: QuantLayer, second: QuantLayer, choice: Choice, bias: Tensor | None
    ) -> None:
        """Empty; fill with `load_weight`."""
        outputs, inputs, *kernel = first.weight_shape
        super().__init__((outputs, inputs + second.weight_shape[1], *kernel), choice, bias)
        self.first = first
        self.second = second

    @classmethod
    def like(cls, layer: nn.Linear | nn.Conv2d, choice: Choice) -> SplitLayer:
        """An empty layer of the same geometry, on the same device.

        Raises:
            PlanError: the split lies outside the input channels, or the channels are in groups.
        """
        if isinstance(layer, nn.Conv2d) and layer.groups != 1:
            raise PlanError(
                f"a convolution of {layer.groups} groups cannot be split; leave split out"
            )
        shapes = part_shapes(choice, tuple(layer.weight.shape))
        first, second = (quant_like(layer, choice.plain, shape) for shape in shapes)
        with layer.weight.device:
            return cls(first, second, choice, layer.bias)

    @property
    @override
    def parts(self) -> tuple[QuantLayer, ...]:
        return (self.first, self.second)

    @override
    def load_weight(
        self, weight: Tensor, search: RangeSearch = MINMAX, ranges: Sequence[InputRange] = ()
    ) -> None:
        check_input_ranges(self.choice, ranges)
        size = self.choice.split
        self.first.load_weight(weight[:, :size], search, ranges[:1])
        self.second.load_weight(weight[:, size:], search, ranges[1:])

    @override
    def forward(self, x: Tensor) -> Tensor:
        operation = self.first.operation
        first, second = part_inputs(x, self.choice, operation)
        return _biased(self.first(first) + self.second(second), self.bias, operation.channel_dim)


def _biased(y: Tensor, bias: Tensor | None, dim: int) -> Tensor:
    """`y` plus the bias along dimension `dim`, which is negative."""
    if bias is None:
        return y
    return y + bias.to(y.dtype).view(-1, *(1,) * (-dim - 1))
