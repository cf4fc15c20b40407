"""Processors of diffusers' attention layers, and the function that they multiply by.

The newer ones ask a registry of back ends, by the name in their `_attention_backend`. The older
ones have torch's function written out in their `__call__`: they get a subclass of their own class
in which the name `F` means functions of which attention is ours. Either is undone by a name or a
class; what is saved does not know of it.
"""

from __future__ import annotations

import copy
import functools
import types
from functools import cache
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from mezzotint._registration import BACKEND
from mezzotint.runtime.attention.function import attention

_NAME = "F"
"""Name of torch's functions in diffusers' modules."""

_FUNCTION = "scaled_dot_product_attention"

_STOCK = "_mezzotint_stock"
"""Attribute of our subclasses: the class that they stand for."""

_NATIVE = "native"
"""Diffusers' name of torch's function, which a processor without a name asks for as well."""


def use_fast_attention(module: nn.Module, *, enabled: bool = True) -> None:
    """Have the attention layers of a module computed in the fastest way, or by torch again.

    Layers that another library computes are left alone, and so are those whose processors multiply
    by other functions.

    Args:
        module: with attention layers of diffusers.
        enabled: False undoes it.
    """
    for layer in module.modules():
        processor: Any = getattr(layer, "processor", None)
        if processor is None or not hasattr(layer, "set_processor"):
            continue
        if hasattr(processor, "_attention_backend"):
            backend = processor._attention_backend
            name = None if backend is None else str(getattr(backend, "value", backend))
            if enabled and name in (None, _NATIVE):
                processor._attention_backend = BACKEND
            elif not enabled and name == BACKEND:
                processor._attention_backend = None
            continue
        kind: type | None = getattr(type(processor), _STOCK, None)
        if enabled:
            stock: type = type(processor)
            kind = None if kind is not None else _fast_class(stock)
        if kind is not None:
            other = copy.copy(processor)
            other.__class__ = kind
            cast(Any, layer).set_processor(other)


def has_fast_attention(module: nn.Module) -> bool:
    """True where an attention layer is computed in the fastest way."""
    processors = (getattr(layer, "processor", None) for layer in module.modules())
    return any(
        hasattr(type(each), _STOCK) or str(getattr(each, "_attention_backend", None)) == BACKEND
        for each in processors
    )


@cache
def _fast_class(stock: type) -> type | None:
    """A subclass that computes by `attention`; None where the class calls no function of torch."""
    call = stock.__dict__.get("__call__")
    if not isinstance(call, types.FunctionType) or _FUNCTION not in call.__code__.co_names:
        return None
    if call.__globals__.get(_NAME) is not functional:
        return None
    # Its own code, to which the name means our functions.
    fast = types.FunctionType(
        call.__code__,
        {**call.__globals__, _NAME: _functions()},
        call.__name__,
        call.__defaults__,
        call.__closure__,
    )
    fast.__kwdefaults__ = call.__kwdefaults__

    @functools.wraps(call)
    def compute(*args: Any, **kwargs: Any) -> Any:
        # Compilers look names up in the module that a function says it is of.
        return (call if torch.compiler.is_compiling() else fast)(*args, **kwargs)

    members = {
        "__call__": compute,
        "__doc__": stock.__doc__,
        "__module__": stock.__module__,
        "__reduce_ex__": _reduce,
        _STOCK: stock,
    }
    return type(f"Fast{stock.__name__}", (stock,), members)


@cache
def _functions() -> types.ModuleType:
    """Torch's functions, of which attention is ours."""
    functions = types.ModuleType(functional.__name__, functional.__doc__)
    functions.__dict__.update(vars(functional), **{_FUNCTION: attention})
    return functions


def _reduce(processor: Any, protocol: int) -> tuple[Any, ...]:
    """Copies and pickles name the stock class, from which ours is made again."""
    return _empty, (getattr(type(processor), _STOCK),), vars(processor)


def _empty(stock: type) -> Any:
    kind: Any = _fast_class(stock)
    return kind.__new__(kind)
