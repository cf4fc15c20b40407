"""Weights that exist only while they are read: of packed layers, and of layers left on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from typing_extensions import override

from mezzotint.errors import UsageError

_aten = torch.ops.aten
_SET_DATA = Tensor.data.__set__  # type: ignore[attr-defined]


class LazyWeight(Tensor):
    """A dense weight that exists only while an operation reads it.

    Shape, dtype and device are known without work. Every operation on its values dequantizes the
    weight anew and returns an ordinary tensor; nothing is kept. It takes no gradient, and writing
    to it raises UsageError. Libraries that look at a layer's `weight` (peft, accelerate, models
    that cast their input to its dtype) thus find one, while the layer stores codes alone.

    Gradients pass through it to what it is multiplied with: the graph keeps the lazy weight, which
    the backward pass reads again.

    Attributes:
        refusal: what is said to whoever writes to it.
    """

    refusal: ClassVar[str] = (
        "the weight of a packed layer is read only: its codes cannot take a change; call "
        "dequantize() on the model first, or fuse adapters into the original before quantizing it"
    )
    _is_hf_initialized: ClassVar[bool] = True
    """Tells transformers, which gives random values to weights that it has not loaded, of this."""
    _dequantize: Callable[[], Tensor]

    @staticmethod
    def __new__(
        cls: type[LazyWeight],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        dequantize: Callable[[], Tensor],
        strides: tuple[int, ...] | None = None,
        offset: int = 0,
    ) -> LazyWeight:
        """Stand for what `dequantize()` returns, which has this shape, dtype and device.

        It is contiguous, unless `strides` say otherwise. `offset` is where a view begins in what
        it is a view of.
        """
        weight: LazyWeight = Tensor._make_wrapper_subclass(
            cls,
            shape,
            strides=strides,
            storage_offset=None if strides is None else offset,
            dtype=dtype,
            device=device,
            requires_grad=False,
        )
        weight._dequantize = dequantize
        return weight

    def dequantize(self) -> Tensor:
        """An ordinary tensor of the weight's values."""
        return self._dequantize()

    @override
    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"LazyWeight({tuple(self.shape)}, dtype={self.dtype}, device={self.device})"

    @override
    def __deepcopy__(self, memo: Any) -> Tensor:
        return self._dequantize()

    @override
    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._dequantize().__reduce_ex__(protocol)  # type: ignore[no-untyped-call]

    @classmethod
    @override
    def __torch_function__(
        cls,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        # The one way of writing that no operation sees. Modules that are moved to where they are
        # assign to each parameter itself.
        if func == _SET_DATA:
            if args[0] is args[1]:
                return None
            raise UsageError(cls.refusal)
        # Without the default's conversion: results are ordinary tensors.
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's stub has no function and no class
        cls,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Dequantize the lazy arguments, then compute as usual."""
        kwargs = dict(kwargs or {})
        if func in (_aten.detach.default, _aten.alias.default):
            return _like(args[0], args[0], args[0]._dequantize)
        _refuse_writes(func, args, kwargs)
        if func.is_view and isinstance(args[0], LazyWeight):
            return _lazy_views(func, args, kwargs)
        return func(*tree_map(dense, args), **tree_map(dense, kwargs))


def dense(value: Any) -> Any:
    """An ordinary tensor for a lazy one, anything else as it is.

    For whoever reads a weight several times, piece after piece: each operation on a lazy one would
    make all of it anew.
    """
    return value.dequantize() if isinstance(value, LazyWeight) else value


def _like(lazy: LazyWeight, layout: Tensor, dequantize: Callable[[], Tensor]) -> LazyWeight:
    """A weight of the same kind with another layout."""
    shape, strides, offset = tuple(layout.shape), layout.stride(), layout.storage_offset()
    return type(lazy)(shape, layout.dtype, lazy.device, dequantize, strides, int(offset))


def _lazy_views(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Views of a lazy weight: lazy as well, so that writing to them is refused, too."""
    lazy, others = args[0], args[1:]
    offset = lazy.storage_offset()
    reach = offset + sum((n - 1) * step for n, step in zip(lazy.shape, lazy.stride(), strict=True))
    whole = torch.empty(max(reach + 1, 0), dtype=lazy.dtype, device="meta")
    shapes = func(whole.as_strided(lazy.shape, lazy.stride(), offset), *others, **kwargs)

    def view(shape: Tensor, index: int | None = None) -> LazyWeight:
        def dequantize() -> Tensor:
            found = func(lazy.dequantize(), *others, **kwargs)
            tensor: Tensor = found if index is None else found[index]
            return tensor

        return _like(lazy, shape, dequantize)

    if isinstance(shapes, Tensor):
        return view(shapes)
    return type(shapes)(view(shape, index) for index, shape in enumerate(shapes))


def _refuse_writes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    named = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    for argument in func._schema.arguments:
        writes = argument.alias_info is not None and argument.alias_info.is_write
        value = named.get(argument.name)
        if writes and isinstance(value, LazyWeight):
            raise UsageError(value.refusal)
