"""A packed layer as nodes of an OpenVINO graph."""

from __future__ import annotations

import re
from typing import Any, Literal

import numpy as np
import torch
from openvino import opset13 as ops

from mezzotint.engines.openvino import weights
from mezzotint.engines.openvino.nodes import integers, with_bias
from mezzotint.engines.openvino.structure_nodes import PartNodes, builder_of
from mezzotint.engines.openvino.token_nodes import TokenNodes
from mezzotint.formats import ActivationFormat
from mezzotint.runtime import Conv2d, PackedLayer, QuantizedPart, StructuredLayer
from mezzotint.runtime.cpu import processor

Form = Literal["int8", "integers", "float"]
"""Form of a layer's weight: int8 for 8-bit products, integers that are unpacked for floating ones
(which convolutions of several pixels read floating), or floating values."""

_NAMED = re.compile("mezzotint:([^:]*):")
"""Names of nodes. OpenVINO joins them with commas, and numbers those that it finds twice."""

_PRODUCTS = frozenset({"FullyConnected", "Convolution", "MatMul"})


def packed_subgraph(layer: PackedLayer, name: str, x: Any, tokens: TokenNodes) -> Any:
    """The output of `layer` for the node output `x`, float32.

    Args:
        layer: packed, or a part of such a layer.
        name: of the layer.
        x: its input.
        tokens: of the graph that is built.
    """
    if isinstance(layer, StructuredLayer):
        parts = layer.named_parts
        nodes = PartNodes(lambda part, x: packed_subgraph(parts[part], name, x, tokens), tokens)
        return builder_of(layer.structure)(layer, x, nodes)
    assert isinstance(layer, QuantizedPart)
    y = _quantized(layer, name, x)
    if layer.bias is not None:
        y = with_bias(y, layer.bias, layer.channel_dim)
        # Fused into the product, which then bears this name alone.
        y.set_friendly_name(f"mezzotint:{name}:")
    return y


def layer_names(node: Any) -> set[str]:
    """The packed layers whose products a node of a compiled model computes."""
    info = node.get_rt_info()
    if info["layerType"].astype(str) not in _PRODUCTS:
        return set()
    # Where all channels have one scale, the product loses its name, but not its weight.
    weight = node.input_value(1).get_node()
    names = [node.get_friendly_name(), weight.get_friendly_name()]
    if "originalLayersNames" in info:
        names.append(info["originalLayersNames"].astype(str))
    return set(_NAMED.findall(",".join(names)))


def weight_form(
    layer: QuantizedPart, weight: weights.IntegerWeight | None
) -> tuple[Form, str | None]:
    """Form of a layer's weight, and the reason where it is not that of 8-bit products."""
    if weight is None:
        return "float", "the weight format has no integers that OpenVINO computes with"
    activation = layer.activation_format
    if activation is None:
        return "integers", "the plan leaves the input floating"
    if not activation.static:
        return "integers", "dynamic ranges are not calibrated; the input stays floating"
    if weight.scale.shape[1] > 1:
        return "integers", "8-bit products need one scale per output channel"
    if weight.shifted:
        return "integers", "OpenVINO has 8-bit products for symmetric weights only"
    if not processor.VNNI and (activation.symmetric or not weight.pairs_fit):
        return "integers", "this processor has no VNNI; its 8-bit products saturate"
    return "int8", None


def _quantized(layer: QuantizedPart, name: str, x: Any) -> Any:
    """The product of one quantizer, without bias."""
    weight = weights.integers(layer.packed_weight)
    form, _ = weight_form(layer, weight)
    if form == "integers" and isinstance(layer.operation, Conv2d) and not _is_pointwise(layer):
        # OpenVINO would unpack it while compiling, and keep that beside what it multiplies; this
        # is mapped from disk.
        form = "float"
    activation = layer.activation_format
    if activation is not None and activation.static:
        x = _faked(layer, activation, x) if form == "int8" else _rounded(layer, activation, x)
    shape, lead = _weight_shape(layer)
    pointwise = form == "integers" and _is_pointwise(layer)
    if pointwise:
        shape = shape[:2]
    if weight is None or form == "float":
        node = ops.constant(layer.packed_weight.dequantized(torch.float32).reshape(shape).numpy())
    elif form == "int8":
        node = weights.signed(weight, shape, lead)
        codes = node.input_value(0).get_node().input_value(0).get_node()
        codes.set_friendly_name(f"mezzotint:{name}:")
    else:
        node = weights.compressed(weight, shape, lead)
    if pointwise:  # [n, channels, height, width] with [outputs, channels]
        x = ops.transpose(x, integers(0, 2, 3, 1))
    product = ops.matmul(x, node, False, True) if pointwise else _product(layer, x, node)
    product.set_friendly_name(f"mezzotint:{name}:")
    return ops.transpose(product, integers(0, 3, 1, 2)) if pointwise else product


def _weight_shape(layer: QuantizedPart) -> tuple[tuple[int, ...], int]:
    """Shape of the weight's node, and how many leading dimensions are its rows."""
    outputs, *rest = layer.weight_shape
    groups = layer.operation.groups
    if groups == 1:
        return (outputs, *rest), 1
    return (groups, outputs // groups, *rest), 2


def _is_pointwise(layer: QuantizedPart) -> bool:
    """True for a convolution that is a product of a matrix with each pixel alone.

    Packed weights stay so in such a product; in a convolution OpenVINO would unpack them, some at
    every call.
    """
    if not isinstance(layer.operation, Conv2d):
        return False
    geometry = layer.operation.geometry
    plain = (geometry.groups, *geometry.stride) == (1, 1, 1)
    return plain and layer.weight_shape[2:] == (1, 1) and geometry.padding == ((0, 0), (0, 0))


def _product(layer: QuantizedPart, x: Any, weight: Any) -> Any:
    if not isinstance(layer.operation, Conv2d):
        return ops.matmul(x, weight, False, True)
    geometry = layer.operation.geometry
    operation = ops.convolution if geometry.groups == 1 else ops.group_convolution
    (top, bottom), (left, right) = geometry.padding
    stride, dilation = list(geometry.stride), list(geometry.dilation)
    return operation(x, weight, stride, [top, left], [bottom, right], dilation, "explicit")


def _faked(layer: QuantizedPart, activation: ActivationFormat, x: Any) -> Any:
    """`x` rounded to our scale and zero point, in the way that leads OpenVINO to 8-bit products."""
    scale, zero_point = _input_parameters(layer)
    low, high = activation.limits
    ends = [np.float32((end - zero_point) * scale) for end in (low, high)]
    bounds = [ops.constant(np.array(end, np.float32)) for end in ends]
    return ops.fake_quantize(x, *bounds, *bounds, high - low + 1)


def _rounded(layer: QuantizedPart, activation: ActivationFormat, x: Any) -> Any:
    """The same values by plain arithmetic, which leaves the product floating."""
    scale, zero_point = _input_parameters(layer)
    low, high = activation.limits
    step = ops.constant(np.array(scale, np.float32))
    steps = ops.round(ops.divide(x, step), "half_to_even")
    return ops.multiply(ops.clamp(steps, low - zero_point, high - zero_point), step)


def _input_parameters(layer: QuantizedPart) -> tuple[float, float]:
    quantizer = layer.input_quantizer
    assert quantizer is not None
    assert quantizer.scale is not None
    assert quantizer.zero_point is not None
    return float(quantizer.scale), float(quantizer.zero_point)
