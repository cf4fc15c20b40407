"""Dtypes in which floating tensors of a model are stored, whatever they are computed in.

A model that was read from float16 computes in the dtype that was asked for, and goes back to disk
as it came. Each module of it notes the dtypes of its own tensors; copies of the model keep them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

_NOTE = "_stored_dtypes"
"""Attribute of a module: name of a tensor of its own → dtype."""

FILE_DTYPE = "file_dtype"
"""Attribute of a tensor that stays in its file, where it has this dtype: it never changes."""

_NARROW = {"F16": torch.float16, "BF16": torch.bfloat16}
"""Dtypes worth a note: tensors of others are not stored wider than they are held."""


def read_dtypes(files: Iterable[Path]) -> dict[str, torch.dtype]:
    """Name → dtype of the tensors in safetensors files that take less than float32 does."""
    found: dict[str, torch.dtype] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118  (not a mapping)
                name = opened.get_slice(key).get_dtype()
                if name in _NARROW:
                    found[key] = _NARROW[name]
    return found


def note_dtypes(module: nn.Module, dtypes: Mapping[str, torch.dtype]) -> None:
    """Note the dtypes of a module's tensors by dotted names; unknown names are passed over."""
    modules = dict(module.named_modules())
    for name, dtype in dtypes.items():
        owner, _, own = name.rpartition(".")
        if owner in modules:
            modules[owner].__dict__.setdefault(_NOTE, {})[own] = dtype


def has_notes(module: nn.Module) -> bool:
    """True where the dtype of any tensor is noted."""
    return any(_NOTE in vars(each) for each in module.modules())


def keep_notes(old: nn.Module, new: nn.Module) -> None:
    """Take the notes of a module's own tensors over to what takes its place."""
    if _NOTE in vars(old):
        new.__dict__[_NOTE] = dict(old.__dict__[_NOTE])


def stored_dtype(module: nn.Module, name: str, tensor: Tensor) -> torch.dtype:
    """The dtype in which a module's own tensor is stored: as noted, where that loses nothing.

    What was changed since it was read, so that its dtype no longer holds it, and what was cast to
    another dtype meanwhile, is stored as it is.

    Args:
        module: that holds the tensor.
        name: of the tensor in there.
        tensor: its value; on the meta device any value counts as held.
    """
    noted: torch.dtype | None = vars(module).get(_NOTE, {}).get(name)
    if noted is None or not tensor.is_floating_point():
        return tensor.dtype
    if noted.itemsize >= tensor.dtype.itemsize:
        return tensor.dtype
    if hasattr(tensor, FILE_DTYPE):
        return noted
    value = tensor.detach()
    held = value.is_meta or torch.equal(value.to(noted).to(value.dtype), value)
    return noted if held else tensor.dtype


@torch.no_grad()
def round_as_stored(module: nn.Module) -> None:
    """Round what was changed since it was read to the dtypes that are noted, in place."""
    for each in module.modules():
        own = dict(each.named_parameters(recurse=False)) | dict(each.named_buffers(recurse=False))
        for name, dtype in vars(each).get(_NOTE, {}).items():
            tensor = own.get(name)
            if tensor is not None and tensor.dtype.itemsize > dtype.itemsize:
                tensor.copy_(tensor.to(dtype))


def stored_dtypes(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, torch.dtype]:
    """Name → dtype in which each tensor of a module's state is stored."""
    modules = dict(module.named_modules())
    found: dict[str, torch.dtype] = {}
    for name, tensor in state.items():
        owner, _, own = name.rpartition(".")
        known = owner in modules
        found[name] = stored_dtype(modules[owner], own, tensor) if known else tensor.dtype
    return found


@contextmanager
def stored_state(module: nn.Module) -> Iterator[None]:
    """Have `module.state_dict()` give tensors in the dtypes that they are stored in, for a while.

    Tied tensors stay one.
    """

    def cast(_: nn.Module, state: dict[str, Any], *rest: object) -> None:
        tensors = {name: each for name, each in state.items() if isinstance(each, Tensor)}
        made: dict[Hashable, Tensor] = {}
        for name, dtype in stored_dtypes(module, tensors).items():
            tensor = tensors[name]
            if dtype == tensor.dtype:
                continue
            # Not the place alone: a view of another shape, and all empty tensors, share one.
            same = tensor.data_ptr(), tensor.shape, tensor.stride(), dtype
            if same not in made:
                made[same] = tensor.to(dtype)
            state[name] = made[same]

    hook = module.register_state_dict_post_hook(cast)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        hook.remove()
