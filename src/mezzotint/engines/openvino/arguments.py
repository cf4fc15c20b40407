"""A denoiser's arguments as a flat list of tensors, and everything else as a key."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mezzotint._time_argument import TIME_ARGUMENTS
from mezzotint.engines.variant import base_class
from mezzotint.errors import UsageError


@dataclass(frozen=True)
class _Slot:
    """Stands for the tensor at `index` of the flat list."""

    index: int


@dataclass(frozen=True)
class Arguments:
    """One call of a denoiser.

    Attributes:
        tensors: every tensor among the arguments, at whatever depth.
        names: of the argument each one is (in).
        form: the arguments by name, with slots in the tensors' places.
        return_dict: whether the caller wants a model output instead of a tuple.
    """

    tensors: tuple[Tensor, ...]
    names: tuple[str, ...]
    form: Mapping[str, Any]
    return_dict: bool

    @property
    def key(self) -> Hashable:
        """Equal for calls that one compiled model serves."""
        tensors = tuple((tuple(tensor.shape), tensor.dtype) for tensor in self.tensors)
        return tensors, _frozen(self.form)

    def filled(self, tensors: Sequence[Tensor]) -> dict[str, Any]:
        """The arguments by name, with these tensors."""
        filled: dict[str, Any] = _filled(self.form, tensors)
        return filled


def bind(denoiser: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
    """The arguments of `denoiser(*args, **kwargs)`.

    A timestep given as a number becomes a tensor, so that one compiled model serves all of them.

    Raises:
        UsageError: an argument is neither tensor, number, text, None, nor made of such.
        TypeError: as Python's own, where the arguments do not fit the signature.
    """
    signature = inspect.signature(base_class(denoiser).forward)
    bound = dict(signature.bind(denoiser, *args, **kwargs).arguments)
    del bound[next(iter(signature.parameters))]
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            bound |= bound.pop(name, {})
    return_dict = bool(bound.pop("return_dict", True))
    for name in TIME_ARGUMENTS & bound.keys():
        if isinstance(bound[name], int | float):
            bound[name] = torch.tensor(bound[name])
    tensors: list[Tensor] = []
    names: list[str] = []
    form: dict[str, Any] = {}
    for name, value in bound.items():
        form[name] = _formed(name, value, tensors)
        names += [name] * (len(tensors) - len(names))
    return Arguments(tuple(tensors), tuple(names), form, return_dict)


def _formed(name: str, value: Any, tensors: list[Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors.append(value)
        return _Slot(len(tensors) - 1)
    if isinstance(value, Mapping):
        return {key: _formed(name, item, tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_formed(name, item, tensors) for item in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UsageError(
        f"{name}: is a {type(value).__name__}, which cannot be compiled into a model; use the "
        "torch engine for such calls"
    )


def _filled(form: Any, tensors: Sequence[Tensor]) -> Any:
    if isinstance(form, _Slot):
        return tensors[form.index]
    if isinstance(form, Mapping):
        return {key: _filled(item, tensors) for key, item in form.items()}
    if isinstance(form, list | tuple):
        return type(form)(_filled(item, tensors) for item in form)
    return form


def _frozen(form: Any) -> Hashable:
    if isinstance(form, Mapping):
        return tuple((key, _frozen(item)) for key, item in form.items())
    if isinstance(form, list | tuple):
        return type(form), tuple(map(_frozen, form))
    # 1, 1.0 and True are equal, and mean different things to a model.
    return type(form), form
