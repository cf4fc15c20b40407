"""Norms with weights in a traced call, and the layers that alone read what they put out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from diffusers.models.normalization import FP32LayerNorm, RMSNorm
from torch import Tensor, nn

from mezzotint.models.calls import map_tensors
from mezzotint.models.graph import Shape
from mezzotint.models.origins import NormOutput, Read
from mezzotint.models.torch_functions import function_name, values_read

_CHANNELS_LAST = (nn.LayerNorm, FP32LayerNorm, nn.RMSNorm, RMSNorm)
"""Norms of the last dimension; each multiplies what it normalizes by its weight, at the end."""

_SAME = frozenset({"contiguous", "clone", "to", "float", "half", "bfloat16", "type"})
"""Functions that leave shape and values as they are, up to their dtype."""

_RESHAPING = frozenset({"reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze"})
"""Functions that leave the order of all values as it is."""

_PERMUTING = frozenset({"permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "t"})
"""Functions that permute dimensions, whatever their sizes are."""


class Norms:
    """The norms of one traced call, and what reads their outputs.

    A norm counts whose weight and bias have a value for each channel, are its own, and are read by
    nobody else.
    """

    def __init__(self, denoiser: nn.Module) -> None:
        """No norm has been run."""
        uses = Counter(
            parameter
            for module in denoiser.modules()
            for parameter in module._parameters.values()
            if parameter is not None
        )
        self._dims: dict[str, int] = {}
        self._parameters: dict[int, str] = {}
        for name, module in denoiser.named_modules():
            own = dict(module.named_parameters(recurse=False))
            dim = _channel_dim(module)
            if dim is None or any(uses[each] > 1 for each in own.values()):
                continue
            self._dims[name] = dim
            self._parameters |= {id(each): name for each in own.values()}
        self._readers: dict[str, dict[str, None]] = {}
        """Norm that has been run → layers that read its output."""
        self._shared: set[str] = set()
        """Norms whose output or parameters something else reads."""
        self._mixed: set[str] = set()
        """Layers that have read other tensors, too."""

    def left(self, name: str, output: Tensor) -> NormOutput | None:
        """The mark of what a module put out; None where it is no such norm."""
        if name not in self._dims:
            return None
        self._readers.setdefault(name, {})
        return NormOutput(name, self._dims[name] % output.ndim)

    def called(self, name: str, module: str, reads: Sequence[Read]) -> None:
        """Take note of a function that made a tensor, wrote to one, or gave values away.

        Args:
            name: of the function.
            module: the innermost that is being run.
            reads: its tensors.
        """
        for read in values_read(name, reads):
            owner = self._parameters.get(id(read.tensor))
            if owner is not None and owner != module:
                self._shared.add(owner)
        self.read_elsewhere(values_read(name, reads))

    def read_elsewhere(self, reads: Iterable[Read]) -> None:
        """Take note of what others than layers read."""
        for read in reads:
            if read.origin.norm is not None:
                self.share(read.origin.norm)

    def share(self, output: NormOutput) -> None:
        """Take note that something other than a layer has the output of a norm."""
        self._shared.add(output.norm)

    def read_by(self, layer: str, channel_dim: int, reads: Sequence[Read]) -> None:
        """Take note of what a layer reads: its input first.

        Args:
            layer: its name.
            channel_dim: dimension of its input's channels, from the end.
            reads: its tensors.
        """
        x, *others = reads
        self.read_elsewhere(others)
        found = x.origin.norm
        if found is None:
            self._mixed.add(layer)
        elif found.dim == x.tensor.ndim + channel_dim:
            self._readers[found.norm][layer] = None
        else:
            self.share(found)

    def readers(self, functional: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Norm → the layers that read its output and nothing else, where nothing else reads it.

        Args:
            functional: layers whose weights are read by functions.
        """
        impure = self._mixed.union(functional)
        impure |= {
            layer
            for layer, count in Counter(x for each in self._readers.values() for x in each).items()
            if count > 1
        }
        return {
            norm: tuple(layers)
            for norm, layers in self._readers.items()
            if layers and norm not in self._shared and not impure.intersection(layers)
        }


def norm_viewed(call: partial[Any], read: Read, result: Tensor) -> NormOutput | None:
    """The mark of what a function made of a norm's output; None where that is no view of it.

    Args:
        call: the function, with what it was given.
        read: its first tensor.
        result: of it.
    """
    found, name = read.origin.norm, function_name(call.func)
    if found is None or found.dim is None:
        return None
    before, after = read.shape, tuple(result.shape)
    if name in _SAME and before == after and result.is_floating_point():
        return found
    if name in _RESHAPING and result.dtype == read.tensor.dtype:
        return NormOutput(found.norm, _reshaped(found.dim, before, after))
    if name in _PERMUTING:
        sizes = torch.empty(tuple(range(2, 2 + len(before))), device="meta")
        args, kwargs = (map_tensors(each, lambda _: sizes) for each in (call.args, call.keywords))
        moved = call.func(*args, **kwargs)
        return NormOutput(found.norm, list(moved.shape).index(2 + found.dim))
    return None


def _reshaped(dim: int, before: Shape, after: Shape) -> int | None:
    """The dimension that holds the same channels in another shape of the same values."""
    channels, inner = before[dim], math.prod(before[dim + 1 :])
    places = [
        place
        for place, size in enumerate(after)
        if size == channels and math.prod(after[place + 1 :]) == inner
    ]
    return places[0] if len(places) == 1 else None


def _channel_dim(module: nn.Module) -> int | None:
    """The dimension of a norm's channels, each with a weight of its own; None for other modules."""
    weight = module._parameters.get("weight")
    if weight is None or weight.ndim != 1 or len(weight) < 2:
        return None
    if type(module) is nn.GroupNorm:
        return 1
    return -1 if type(module) in _CHANNELS_LAST else None
