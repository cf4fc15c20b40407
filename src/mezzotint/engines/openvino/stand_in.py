"""Layers that take the places of packed ones while OpenVINO traces a denoiser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from typing_extensions import override

from mezzotint.runtime import PackedLayer
from mezzotint.runtime.layers import attributes_of, set_attributes
from mezzotint.runtime.lazy_weight import LazyWeight


class StandIn(nn.Module):
    """Takes the place of a packed layer, so that the graph has one operation for it.

    Like the layer, it is an nn.Linear or nn.Conv2d to whoever asks, with their attributes: some
    models look at a layer's weight or parameters before they call it.
    """

    def __init__(self, layer: PackedLayer) -> None:
        # Past nn.Linear or nn.Conv2d, which would allocate a weight.
        nn.Module.__init__(self)
        # In a tuple: no submodule, hence out of reach of casts and copies.
        self._layers = (layer,)
        # A bias of its own, for casts; a float32 one shares its memory.
        bias = None if layer.bias is None else layer.bias.detach().float()
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @property
    def stood_for(self) -> PackedLayer:
        """The packed layer."""
        return self._layers[0]

    @property
    def weight(self) -> Tensor:
        """The weight in float32; a constant of the graph where its values are read."""
        device = self.stood_for.parts[0].weight_device
        return _TracedWeight(
            self.stood_for.weight_shape, torch.float32, device, self.stood_for.dequantized_weight
        )

    @override
    def forward(self, input: Tensor) -> Tensor:
        with _untraced():
            return torch.zeros_like(self.stood_for.parts[0].empty_output(input))


class _StandInLinear(StandIn, nn.Linear):  # type: ignore[misc,override]  # weight is lazy
    """Takes the place of a packed Linear."""

    def __init__(self, layer: PackedLayer) -> None:
        super().__init__(layer)
        self.out_features, self.in_features = layer.weight_shape


class _StandInConv2d(StandIn, nn.Conv2d):  # type: ignore[misc,override]  # weight is lazy
    """Takes the place of a packed Conv2d."""

    def __init__(self, layer: PackedLayer, attributes: Mapping[str, Any]) -> None:
        super().__init__(layer)
        set_attributes(self, layer.weight_shape, attributes)


def stand_in(layer: PackedLayer) -> StandIn:
    """A module like `layer`, without its stored tensors."""
    module: nn.Module = layer
    if isinstance(module, nn.Conv2d):
        return _StandInConv2d(layer, attributes_of(module))
    return _StandInLinear(layer)


class _TracedWeight(LazyWeight):
    """A weight that enters a traced graph as a constant.

    The tracer takes arguments before `LazyWeight` dequantizes them, and has no values of it.
    """

    @classmethod
    @override
    def __torch_function__(
        cls,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        # Shape, dtype and the like are known without values.
        if getattr(func, "__name__", "") != "__get__":
            args, kwargs = tree_map(_constant, args), tree_map(_constant, kwargs)
        return super().__torch_function__(func, types, args, kwargs)


def _constant(value: Any) -> Any:
    if not isinstance(value, _TracedWeight):
        return value
    with _untraced():
        return value.dequantize()


@contextmanager
def _untraced() -> Iterator[None]:
    """Keep what happens out of the graph being traced."""
    tracer: Any = torch._C  # whose stubs lack half of this pair
    state = tracer._get_tracing_state()
    tracer._set_tracing_state(None)
    try:
        yield
    finally:
        tracer._set_tracing_state(state)
