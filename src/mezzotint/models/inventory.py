"""The layers of a denoiser that hold nearly all its weights and work."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mezzotint.errors import ModelError
from mezzotint.models.calls import Call
from mezzotint.models.examples import example_call
from mezzotint.models.roles import Role, role_of
from mezzotint.models.skeleton import skeleton, watch

Kind = Literal[
    "linear",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
]

_KINDS: Mapping[type[nn.Module], Kind] = {
    nn.Linear: "linear",
    nn.Conv1d: "conv1d",
    nn.Conv2d: "conv2d",
    nn.Conv3d: "conv3d",
    nn.ConvTranspose1d: "conv_transpose1d",
    nn.ConvTranspose2d: "conv_transpose2d",
    nn.ConvTranspose3d: "conv_transpose3d",
}

_Weighted = nn.Linear | nn.modules.conv._ConvNd


@dataclass(frozen=True)
class Layer:
    """One Linear or Conv layer.

    `weight_shape` is PyTorch's: [out, in] or [out, in / groups, *kernel] (transposed convolutions:
    [in, out / groups, *kernel]). `macs` counts multiply-accumulates of one call of the denoiser,
    all its samples together: 0 if that call never runs the layer, None if no call could be made.
    """

    name: str
    kind: Kind
    role: Role
    weight_shape: tuple[int, ...]
    has_bias: bool
    groups: int
    macs: int | None

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
        """Whether the layer can be replaced by a quantized one.

        Linear and Conv2d can, unless the denoiser never runs them: then they are idle, or their
        weight is read directly, as multi-head attention in PyTorch does, and must stay a tensor.
        """
        return self.kind in ("linear", "conv2d") and self.macs != 0

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
    found = dict(_layers(denoiser))
    macs = _example_macs(denoiser) if call is None else _call_macs(denoiser, call)
    names = [*(macs or {}), *(name for name in found if name not in (macs or {}))]
    return tuple(
        Layer(
            name=name,
            kind=_kind(found[name]),
            role=role_of(name, denoiser),
            weight_shape=tuple(found[name].weight.shape),
            has_bias=found[name].bias is not None,
            groups=getattr(found[name], "groups", 1),
            macs=None if macs is None else macs.get(name, 0),
        )
        for name in names
    )


def _layers(denoiser: nn.Module) -> Iterator[tuple[str, _Weighted]]:
    modules = denoiser.named_modules()
    return ((name, module) for name, module in modules if isinstance(module, _Weighted))


def _kind(module: _Weighted) -> Kind:
    return next(kind for base, kind in _KINDS.items() if isinstance(module, base))


def _example_macs(denoiser: nn.Module) -> dict[str, int] | None:
    try:
        return _count_macs(skeleton(denoiser), example_call(denoiser))
    except ModelError:
        return None


def _call_macs(denoiser: nn.Module, call: Call) -> dict[str, int]:
    device = next(denoiser.parameters()).device
    try:
        return _count_macs(skeleton(denoiser), call.to("meta"))
    except ModelError:
        return _count_macs(denoiser, call.to(device))


@torch.no_grad()
def _count_macs(denoiser: nn.Module, call: Call) -> dict[str, int]:
    """Multiply-accumulates by layer name, in order of first execution."""
    macs: dict[str, int] = {}

    def counter(name: str) -> Callable[[_Weighted, tuple[Tensor, ...], Tensor], None]:
        def count(module: _Weighted, args: tuple[Tensor, ...], output: Tensor) -> None:
            macs[name] = macs.get(name, 0) + _macs(module, args[0], output)

        return count

    hooks = [module.register_forward_hook(counter(name)) for name, module in _layers(denoiser)]
    try:
        watch(denoiser, call)
    finally:
        for hook in hooks:
            hook.remove()
    return macs


def _macs(module: _Weighted, x: Tensor, y: Tensor) -> int:
    """Each weight is used once per position: of the output, or of a transposed conv's input."""
    channels = module.weight.shape[0]
    counted = x if isinstance(module, nn.modules.conv._ConvTransposeNd) else y
    return counted.numel() // channels * module.weight.numel()
