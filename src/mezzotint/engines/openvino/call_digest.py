"""A digest of everything that a compiled denoiser is made of: equal ones need not be made again."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import openvino as ov
import torch
from torch import Tensor, nn

from mezzotint.engines.openvino.arguments import Arguments
from mezzotint.engines.variant import base_class
from mezzotint.runtime import packed_layers
from mezzotint.runtime.cpu import processor
from mezzotint.runtime.layers import attributes_of

_PACKAGES = ("mezzotint", "openvino", "torch", "diffusers", "transformers")

_FIXED = frozenset({"torch", "huggingface_hub", *sys.stdlib_module_names})
"""Packages whose classes are those of their version, and whose functions wrap others."""

_OF_TORCH = frozenset(vars(nn.Module()))
"""Attributes that every module has: its tensors, layers and hooks, which are looked at apart."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")

_OURS = ("compilations", "hf_quantizer")
"""Attributes of a packed denoiser that say nothing that its layers do not."""

_STOCK = "_mezzotint_stock"
"""Attribute of classes of attention processors that we make at run time: the class in whose way
they compute while they are traced."""

_PLACES = ("_name_or_path", "_use_default_values")
"""Entries of configurations that say where they were read, and what was not; in any order."""


class UnknownPartError(Exception):
    """Something in a denoiser has no digest: code made while the program runs, or foreign state."""


def call_digest(denoiser: nn.Module, arguments: Arguments) -> str | None:
    """SHA-256 of what decides the OpenVINO model of such calls, in hexadecimal digits.

    That is: the code, attributes and tensors of all modules, the choices and codes of packed
    layers, the shapes and the form of the arguments, the versions of all that converts them, and
    the processor. None where a part of the denoiser cannot be compared with another process's,
    such as a function that a program has put in the place of a method.
    """
    digest = hashlib.sha256()
    try:
        for part in _parts(denoiser, arguments):
            digest.update(part)
    except UnknownPartError:
        return None
    return digest.hexdigest()


def _parts(denoiser: nn.Module, arguments: Arguments) -> Iterable[bytes | memoryview]:
    yield _text({name: version(name) for name in _PACKAGES})
    yield _own_sources()
    yield _text(_processor())
    yield _text(_described(arguments.key, {}))
    names = {id(module): name for name, module in denoiser.named_modules()}
    layers = {id(layer): layer for layer in packed_layers(denoiser).values()}
    within = ""
    for name, module in denoiser.named_modules():
        # Names come parents first; parts of a packed layer belong to it.
        if within and name.startswith(within):
            continue
        layer = layers.get(id(module))
        if layer is not None:
            within = f"{name}."
            attributes = attributes_of(module) if isinstance(module, nn.Conv2d) else {}
            yield _text([name, type(layer).__name__, repr(layer.choice), layer.weight_shape])
            yield _text(_described(dict(attributes), {}))
            tensors: Mapping[str, Any] = layer.state_dict()
        else:
            yield _text([name, class_digest(base_class(module)), _attributes(module, names)])
            tensors = {**module._parameters, **module._buffers}
        for each, tensor in tensors.items():
            yield from _tensor(each, tensor)


def _text(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _tensor(name: str, tensor: Any) -> Iterable[bytes | memoryview]:
    if tensor is None:
        return
    if not isinstance(tensor, Tensor) or tensor.device.type != "cpu":
        raise UnknownPartError(name)
    yield _text([name, str(tensor.dtype), list(tensor.shape)])
    yield tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _attributes(module: nn.Module, names: Mapping[int, str]) -> Any:
    if any(getattr(module, hooks) for hooks in _HOOKS):
        raise UnknownPartError("hooks")
    return [
        [name, _described(value, names)]
        for name, value in vars(module).items()
        if name == "training" or (name not in _OF_TORCH and name not in _OURS)
    ]


def _described(value: Any, around: Mapping[int, str]) -> Any:
    """JSON values that two processes agree on; raises UnknownPartError where there are none.

    Args:
        value: of an attribute.
        around: identity → name of the objects that the value may refer to: modules of the same
            denoiser, which are described by themselves, and objects that it is within.
    """
    if value is None or (isinstance(value, bool | int | str) and not isinstance(value, Enum)):
        return [type(value).__name__, value]
    if isinstance(value, float | complex | torch.dtype | torch.device):
        return [type(value).__name__, str(value)]
    if isinstance(value, type):
        return ["class", class_digest(value)]
    if isinstance(value, FunctionType):
        return ["function", _importable(value)]
    if id(value) in around:
        return ["around", around[id(value)]]
    if isinstance(value, nn.Module | Tensor | MethodType):
        # Outside the tree of modules, nobody would see it change.
        raise UnknownPartError(type(value).__name__)
    inside = {**around, id(value): f"within {len(around)}"}
    return [class_digest(type(value)), *(_described(each, inside) for each in _contents(value))]


def _contents(value: Any) -> list[Any]:
    """The values that one is made of."""
    if isinstance(value, Enum):
        return [value.name]
    if isinstance(value, Mapping):
        return [list(item) for item in value.items() if item[0] not in _PLACES]
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, partial):
        # Our own save and cast packed models, which they hold.
        ours = isinstance(value.func, FunctionType) and _package(value.func) == "mezzotint"
        return [value.func] if ours else [value.func, value.args, value.keywords]
    if not hasattr(value, "__dict__"):
        raise UnknownPartError(type(value).__name__)
    return [vars(value)]


def class_digest(kind: type) -> str:
    """Name of a class, and a digest of the files that define it and what it derives from.

    Raises:
        UnknownPartError: a program has made or changed it while it ran.
    """
    kind = getattr(kind, _STOCK, kind)
    found = hashlib.sha256()
    for each in kind.__mro__:
        package = _package(each)
        if package in _FIXED:
            continue
        _importable(each)
        for member in vars(each).values():
            if isinstance(member, FunctionType) and _package(member) not in {package, *_FIXED}:
                raise UnknownPartError(f"{each.__qualname__}.{member.__name__}")
        found.update(_source(each.__module__))
    return f"{kind.__module__}.{kind.__qualname__} {found.hexdigest()}"


def _origin(found: type | FunctionType) -> tuple[str, str]:
    """Module and name in it; of a function that wraps another, its own."""
    if isinstance(found, FunctionType):
        return found.__globals__["__name__"], found.__code__.co_qualname
    return found.__module__, found.__qualname__


def _package(found: type | FunctionType) -> str:
    return _origin(found)[0].partition(".")[0]


def _importable(found: type | FunctionType) -> str:
    """Name of a class or function that its module knows by it."""
    module, names = _origin(found)
    known: Any = sys.modules.get(module)
    for name in names.split("."):
        known = getattr(known, name, None)
    if known is not found:
        raise UnknownPartError(names)
    return f"{module}.{names}"


@cache
def _processor() -> list[Any]:
    """Name and instructions of the processor, as OpenVINO, torch and the conversion see them."""
    names = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
    core = ov.Core()
    seen: list[Any] = [str(core.get_property("CPU", name)) for name in names]
    return [*seen, torch.backends.cpu.get_cpu_capability(), processor.VNNI]


@cache
def _source(module: str) -> bytes:
    """SHA-256 of the file that defines a module."""
    path = getattr(sys.modules[module], "__file__", None)
    if path is None:
        raise UnknownPartError(module)
    return hashlib.sha256(Path(path).read_bytes()).digest()


@cache
def _own_sources() -> bytes:
    """SHA-256 of the engine's files: a change to them changes what is made."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).digest()
