"""The layers of a denoiser that hold nearly all its weights and work."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from mezzotint._stored_dtypes import stored_dtype
from mezzotint.errors import ModelError
from mezzotint.models.calls import Call
from mezzotint.models.graph import Graph
from mezzotint.models.kinds import Kind, is_plain, kind_of, weight_layers
from mezzotint.models.roles import Role, role_of
from mezzotint.models.tracing import trace_graph


@dataclass(frozen=True)
class Layer:
    """One Linear or Conv layer.

    `weight_shape` is PyTorch's: [out, in] or [out, in / groups, *kernel] (transposed convolutions:
    [in, out / groups, *kernel]). `macs` counts multiply-accumulates of one call of the denoiser,
    all its samples together: 0 if that call never runs the layer, None if no call could be made.
    `weight_bytes` are those of the weight as its checkpoint has it.
    `plain` is false for subclasses, and for layers that compute their weight from another tensor.
    """

    name: str
    kind: Kind
    role: Role
    weight_shape: tuple[int, ...]
    has_bias: bool
    groups: int
    macs: int | None
    weight_bytes: int
    plain: bool = True

    @property
    def parameters(self) -> int:
        """Number of weights, biases not counted."""
        return math.prod(self.weight_shape)

    @property
    def in_features(self) -> int:
        """Input features or channels."""
        if self._transposed:
            return self.weight_shape[0]
        return self.weight_shape[1] * self.groups

    @property
    def out_features(self) -> int:
        """Output features or channels."""
        if self._transposed:
            return self.weight_shape[1] * self.groups
        return self.weight_shape[0]

    @property
    def supported(self) -> bool:
        """True if the layer can be replaced by a quantized one.

        Plain Linear and Conv2d can, unless the denoiser never runs them: then they are idle, or
        their weight is read directly, as multi-head attention in PyTorch does, and must stay a
        tensor.
        """
        return self.plain and self.kind in ("linear", "conv2d") and self.macs != 0

    @property
    def _transposed(self) -> bool:
        return self.kind.startswith("conv_transpose")


def inventory(denoiser: nn.Module, call: Call | None = None) -> tuple[Layer, ...]:
    """Every Linear and Conv layer, in the order of first execution.

    The order and the multiply-accumulates come from one forward pass on the meta device, which
    computes shapes only, with the shapes of `call` or else of `example_call(denoiser)`. Where a
    model's code looks at values, which meta tensors lack, `call` is run for real. Layers that are
    not run follow in order of definition. Without `call`, if no example can be made or run, all
    layers come in order of definition and their `macs` is None.

    Raises:
        ModelError: the denoiser cannot be run on the given `call`.
    """
    try:
        graph = trace_graph(denoiser, call)
    except ModelError:
        if call is not None:
            raise
        graph = None
    return layers_in(denoiser, graph)


def layers_in(denoiser: nn.Module, graph: Graph | None) -> tuple[Layer, ...]:
    """List of `inventory`, from a graph that is there already; None if none could be made."""
    found = dict(weight_layers(denoiser))
    macs: dict[str, int] = {}
    for node in graph.runs if graph else ():
        macs[node.name] = macs.get(node.name, 0) + node.macs
    return tuple(
        Layer(
            name=name,
            kind=kind_of(found[name]),
            role=role_of(name, denoiser),
            weight_shape=tuple(found[name].weight.shape),
            has_bias=found[name].bias is not None,
            groups=getattr(found[name], "groups", 1),
            macs=None if graph is None else macs.get(name, 0),
            weight_bytes=_stored_bytes(found[name]),
            plain=is_plain(found[name]),
        )
        for name in dict.fromkeys([*macs, *found])
    )


def _stored_bytes(layer: Any) -> int:
    weight = layer.weight  # no parameter where it is computed from another
    return int(weight.numel()) * stored_dtype(layer, "weight", weight).itemsize
