"""Origins of tensors in a traced call: the node that each comes from, and which are the same."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from mezzotint.models.graph import Shape
from mezzotint.models.torch_functions import tensors_in


@dataclass(frozen=True)
class NormOutput:
    """A tensor that a norm gave, or a view of it.

    Attributes:
        norm: dotted name of the norm.
        dim: dimension of its channels; None where that is not known.
    """

    norm: str
    dim: int | None


@dataclass(frozen=True)
class Origin:
    """Origin of a tensor in the traced call.

    Attributes:
        node: index of its node; None for constants.
        weights: layers whose weight it is made of, if it is constant.
        sections: dimension and sizes of the parts, if it is the result of a concatenation.
        norm: the norm that gave it, if nothing but a view lies between.
    """

    node: int | None = None
    weights: tuple[str, ...] = ()
    sections: tuple[int, tuple[int, ...]] | None = None
    norm: NormOutput | None = None


CONSTANT = Origin()


@dataclass(frozen=True)
class _Record:
    """The origin of a tensor at one version; torch counts up when a tensor is written to."""

    origin: Origin
    version: int


@dataclass(frozen=True, eq=False)
class Read:
    """One tensor that a function or module is given, as it was then.

    `whole` is the tensor that it is a view of, and the origin of that.
    """

    tensor: Tensor
    origin: Origin
    version: int
    whole: tuple[Tensor, Origin] | None

    @property
    def shape(self) -> Shape:
        """Shape of the tensor."""
        return tuple(self.tensor.shape)

    @property
    def written(self) -> bool:
        """True if the tensor has been written to since."""
        return _version(self.tensor) != self.version


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


class Origins:
    """The origins of all tensors that have been met; those that are gone are forgotten."""

    def __init__(self) -> None:
        self._records: MutableMapping[Tensor, _Record] = WeakTensorKeyDictionary()
        self._numbers: MutableMapping[Tensor, int] = WeakTensorKeyDictionary()
        """Numbers of tensors that are no views, none of which is given twice."""
        self._counter = count()
        self._seen: dict[tuple[Any, ...], int] = {}
        """Number, version, and place of a view within it → number of what a layer reads."""

    def note(self, tensor: Tensor, origin: Origin) -> None:
        """Let a tensor, as it is now, have an origin."""
        self._records[tensor] = _Record(origin, _version(tensor))

    def met(self, tensor: Tensor) -> bool:
        """True if the tensor, or what it is a view of, has been met."""
        return tensor in self._records or tensor._base is not None

    def of(self, tensor: Tensor) -> Origin:
        """Present origin of a tensor."""
        record = self._records.get(tensor)
        if record is not None and record.version == _version(tensor):
            return record.origin
        # A view that nobody has met yet, or one that has been written to by way of another.
        if tensor._base is not None:
            whole = self.of(tensor._base)
            lost = None if whole.norm is None else replace(whole.norm, dim=None)
            return replace(whole, norm=lost)
        return CONSTANT if record is None else record.origin

    def reads(self, values: Any) -> list[Read]:
        """The tensors in nested values, as they are now."""
        return [
            Read(
                tensor,
                self.of(tensor),
                _version(tensor),
                None if tensor._base is None else (tensor._base, self.of(tensor._base)),
            )
            for tensor in tensors_in(values)
        ]

    def number(self, read: Read) -> int:
        """The same for the same values of the same tensor: a new number for every other."""
        whole = read.tensor if read.whole is None else read.whole[0]
        if whole not in self._numbers:
            self._numbers[whole] = next(self._counter)
        number, tensor = self._numbers[whole], read.tensor
        place = tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype
        return self._seen.setdefault((number, read.version, *place), len(self._seen))
