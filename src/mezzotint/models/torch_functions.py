"""Functions of torch that join the tensors they read, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor

from mezzotint.models.graph_builder import Join

ItemT = TypeVar("ItemT")

_JOINS: Mapping[Join, str] = {
    "add": "add iadd radd sub isub rsub subtract index_add scatter_add",
    "multiply": "mul imul rmul multiply div idiv rdiv truediv itruediv rtruediv divide true_divide",
    "concatenate": "cat concat concatenate stack hstack vstack dstack column_stack row_stack",
    "matmul": (
        "matmul rmatmul imatmul mm bmm mv dot inner outer einsum tensordot chain_matmul linear "
        "bilinear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"
    ),
    "write": "setitem index_put index_copy masked_scatter scatter slice_scatter select_scatter",
}
_KIND_OF: Mapping[str, Join] = {
    name: kind for kind, names in _JOINS.items() for name in names.split()
}

ACCUMULATING: Mapping[str, Join] = {
    "addcmul": "multiply",
    "addcdiv": "multiply",
    "addmm": "matmul",
    "addbmm": "matmul",
    "addmv": "matmul",
    "addr": "matmul",
    "baddbmm": "matmul",
}
"""Functions that add their first argument to a product of the others, and the product's kind."""

CONCATENATING = frozenset({"cat", "concat", "concatenate"})

ITEMWISE = frozenset({"broadcast_tensors", "meshgrid"})
"""Functions that give back each argument in another shape, in order."""

LEAVING = frozenset({"numpy", "array", "tolist", "item", "float"})
"""Functions that hand the values of a tensor out of torch, unless they give back a tensor.

`bool` is none: it decides what is run, and no value goes on from there.
"""

_FIRST_ONLY = frozenset({"expand_as", "view_as", "reshape_as", "type_as", "to"})
"""Functions that ask their second argument for its shape or dtype alone."""


def function_name(function: Callable[..., Any]) -> str:
    """Torch's name without the marks of in-place and operator forms: `add_`, `__add__` → `add`."""
    name: str = getattr(function, "__name__", type(function).__name__)
    return name.partition(".")[0].strip("_")


def join_kind(name: str) -> Join:
    """The kind of join that the function of that name is, where its tensors differ in origin."""
    return _KIND_OF.get(name, "other")


def values_read(name: str, reads: Sequence[ItemT]) -> Sequence[ItemT]:
    """Those of a function's tensor arguments whose values, and not their shape alone, count."""
    if name.endswith("_like") or name.startswith("new_"):
        return []
    if name in _FIRST_ONLY:
        return reads[:1]
    if name == "copy":
        return reads[1:2]  # copy_ overwrites the first
    return reads


def joined_sizes(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Tensor
) -> tuple[int, tuple[int, ...]]:
    """The dimension that a call of `torch.cat` joins along, and the size of each part there."""
    tensors = args[0] if args else kwargs["tensors"]
    dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
    # Torch passes over empty tensors of one dimension, whatever the others are.
    parts = (tensor for tensor in tensors if tensor.ndim == result.ndim)
    return dim % result.ndim, tuple(part.shape[dim] for part in parts)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dictionaries, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
