"""Tensors to be written, known before anything is read: shape, dtype and shard of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from torch import nn

from mezzotint.checkpoint.diffusers.contents import check_names
from mezzotint.checkpoint.streaming.stored_tensors import StoredTensor
from mezzotint.errors import CheckpointError
from mezzotint.formats import Shape, TensorSpec
from mezzotint.plan import Plan
from mezzotint.runtime import shape_of, stored_tensors


@dataclass(frozen=True)
class Conversion:
    """One tensor of the source, and the tensors that it becomes.

    Attributes:
        source: where it stands.
        outputs: name in the packed checkpoint → shape and dtype.
        layer: the planned layer whose weight it is; None for a tensor that stays as it is.
    """

    source: StoredTensor
    outputs: Mapping[str, TensorSpec]
    layer: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its outputs."""
        return sum(spec.nbytes for spec in self.outputs.values())


@dataclass(frozen=True)
class Shard:
    """Conversions that go into one file."""

    file: str
    conversions: tuple[Conversion, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(conversion.nbytes for conversion in self.conversions)

    @property
    def outputs(self) -> dict[str, TensorSpec]:
        """Name → shape and dtype of every tensor in it."""
        return {
            name: spec
            for conversion in self.conversions
            for name, spec in conversion.outputs.items()
        }


def conversions_of(
    model: nn.Module,
    plan: Plan,
    tensors: Mapping[str, StoredTensor],
    dtype: torch.dtype | None = None,
) -> tuple[Conversion, ...]:
    """A conversion for every tensor of `model` (on the meta device), in its order.

    `dtype` is what floating tensors that are not packed become; None leaves each as it is stored.

    Raises:
        CheckpointError: a tensor is missing, or of another shape or kind than the model's.
    """
    state = model.state_dict()
    found = _renamed(model, tensors)
    check_names(state.keys() - found.keys(), f"{_folder(tensors)}: lacks")
    weights = {f"{layer}.weight": layer for layer in plan.quantized}
    kept_in_fp32 = set(getattr(model, "_keep_in_fp32_modules", None) or ())
    conversions = []
    for name, expected in state.items():
        source, shape = found[name], tuple(expected.shape)
        _check(source, shape, expected.dtype)
        if name in weights:
            layer = weights[name]
            groups = shape_of(model.get_submodule(layer)).groups
            specs = stored_tensors(plan[layer], shape, groups)
            outputs = {f"{layer}.{each}": spec for each, spec in specs.items()}
            conversions.append(Conversion(source, outputs, layer))
            continue
        kept = source.spec.dtype
        if dtype is not None and kept.is_floating_point:
            kept = torch.float32 if kept_in_fp32.intersection(name.split(".")) else dtype
        conversions.append(Conversion(source, {name: TensorSpec(shape, kept)}))
    return tuple(conversions)


def unknown_tensors(model: nn.Module, tensors: Mapping[str, StoredTensor]) -> tuple[str, ...]:
    """Stored tensors for which the model has no place; diffusers passes over them as well."""
    ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    names = _renamed(model, tensors).keys() - model.state_dict().keys()
    return tuple(
        name for name in sorted(names) if not any(re.search(pattern, name) for pattern in ignored)
    )


def shards_of(conversions: Iterable[Conversion], limit: int) -> tuple[Shard, ...]:
    """Consecutive conversions, `limit` bytes to a file; a larger conversion has one to itself.

    The files are named as diffusers names them.
    """
    groups: list[list[Conversion]] = [[]]
    filled = 0
    for conversion in conversions:
        if groups[-1] and filled + conversion.nbytes > limit:
            groups.append([])
            filled = 0
        groups[-1].append(conversion)
        filled += conversion.nbytes
    if len(groups) == 1:
        return (Shard(SAFETENSORS_WEIGHTS_NAME, tuple(groups[0])),)
    stem = SAFETENSORS_WEIGHTS_NAME.removesuffix(".safetensors")
    return tuple(
        Shard(f"{stem}-{number:05d}-of-{len(groups):05d}.safetensors", tuple(group))
        for number, group in enumerate(groups, 1)
    )


def _renamed(model: nn.Module, tensors: Mapping[str, StoredTensor]) -> Mapping[str, StoredTensor]:
    """Tensors by the names of today; diffusers knows those of its first attention blocks."""
    renamed = dict(tensors)
    model._fix_state_dict_keys_on_load(renamed)  # type: ignore[operator]
    return renamed


def _check(source: StoredTensor, shape: Shape, dtype: torch.dtype) -> None:
    if source.spec.shape != shape:
        raise CheckpointError(
            f"{source}: is of shape {source.spec.shape}, but the model of config.json has "
            f"{shape}; they do not belong together"
        )
    if source.spec.dtype.is_floating_point != dtype.is_floating_point:
        raise CheckpointError(
            f"{source}: is {source.spec.dtype}, but the model has {dtype} there; start from the "
            "floating-point original"
        )


def _folder(tensors: Mapping[str, StoredTensor]) -> str:
    """Holder of the tensors: the file, or the folder of the shards."""
    files = {tensor.file for tensor in tensors.values()}
    if not files:
        return "the checkpoint"
    return str(next(iter(files)) if len(files) == 1 else next(iter(files)).parent)
