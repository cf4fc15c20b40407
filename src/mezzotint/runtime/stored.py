"""The stored weight of a layer, and the form in which its kernel prepared it."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from mezzotint.formats import Shape, WeightFormat
from mezzotint.runtime.kernels import Kernel, Prepared, Replacement
from mezzotint.runtime.operands import Operation, PackedWeight
from mezzotint.runtime.pages import give_back

_PREFIX = "weight_"


@dataclass(frozen=True)
class _Stamp:
    """Identity, place and state of the tensors that something was made of."""

    tensors: tuple[tuple[weakref.ref[Tensor], int, int], ...]

    @classmethod
    def of(cls, tensors: Iterable[Tensor]) -> _Stamp:
        found = ((weakref.ref(each), each.data_ptr(), version_of(each)) for each in tensors)
        return cls(tuple(found))

    def fits(self, tensors: Iterable[Tensor]) -> bool:
        """Return whether these are the same tensors, unchanged."""
        for tensor, (known, place, version) in zip(tensors, self.tensors, strict=True):
            if known() is not tensor or place != tensor.data_ptr() or version != version_of(tensor):
                return False
        return True


def version_of(tensor: Tensor) -> int:
    """A number that changes when a tensor is written to; inference tensors have 0 for good."""
    return 0 if tensor.is_inference() else tensor._version


@dataclass(frozen=True)
class _Entry:
    """A prepared weight.

    Attributes:
        kernel: that prepared it.
        prepared: the weight.
        stamp: of the stored tensors that are still held, but for one that is replaced.
        device: of the weight.
    """

    kernel: Kernel
    prepared: Prepared
    stamp: _Stamp
    device: torch.device


def _by_tensor() -> MutableMapping[Tensor, _Entry]:
    """An empty mapping that forgets what belongs to a tensor when that goes."""
    return WeakIdKeyDictionary()


class StoredWeight(nn.Module):
    """Buffers `weight_*` as a format lays them out, and one prepared weight made of them.

    A prepared weight may replace a stored tensor. Its buffer then holds a placeholder on the meta
    device; state dictionaries, copies and moved layers have the stored tensor as before. A prepared
    weight belongs to the tensor in the first of the buffers: whoever puts another there, for a
    call or for good, has the kernel prepare that, and whoever puts it back has the first again.
    """

    weight_format: WeightFormat
    weight_shape: Shape
    #: Names of the format's tensors.
    weight_names: tuple[str, ...]
    #: True where kernels may hold the weight unpacked between calls, beside the stored one.
    may_hold_unpacked: bool = False
    _prepared: MutableMapping[Tensor, _Entry]
    #: Prepared weight with addresses of stored tensors: as an entry it would keep these alive.
    _addressed: tuple[Kernel, Prepared, _Stamp] | None = None

    def set_weight(self, weight_format: WeightFormat, tensors: dict[str, Tensor]) -> None:
        """Hold a stored weight, under the names of the format's layout."""
        self.weight_format = weight_format
        self.weight_names = tuple(tensors)
        self._prepared = _by_tensor()
        for name, tensor in tensors.items():
            self.register_buffer(_PREFIX + name, tensor)

    @property
    def packed_weight(self) -> PackedWeight:
        """The weight as a value; tensors that are replaced are made anew."""
        return PackedWeight(self.weight_format, self.weight_tensors(), self.weight_shape)

    def weight_tensors(self) -> dict[str, Tensor]:
        """The stored tensors, under the names of the format's layout."""
        return {name: self._stored(name) for name in self.weight_names}

    @property
    def prepared(self) -> Prepared | None:
        """The form in which the weight is held between calls; None where it is as it is stored."""
        entry = self._entry()
        return None if entry is None else entry.prepared

    @property
    def weight_device(self) -> torch.device:
        """The device that the weight is on, in whatever form it is held."""
        entry = self._entry()
        return self._first().device if entry is None else entry.device

    def prepared_by(self, kernel: Kernel, operation: Operation) -> tuple[Prepared, list[Tensor]]:
        """The weight as `kernel` wants it, held for later calls where it may be.

        Also the tensors that must stay as long as it is used.
        """
        held = self._held(None)
        addressed = self._addressed
        if addressed is not None and addressed[0] is kernel and addressed[2].fits(held):
            return addressed[1], held
        self._addressed = None
        entry = self._entry()
        if entry is not None:
            if entry.kernel is kernel:
                return entry.prepared, held
            self.release()
        weight = self.packed_weight
        prepared = kernel.prepare(weight, operation, unpack=self.may_hold_unpacked)
        if prepared.views_stored:
            stored = list(weight.tensors.values())
            without = prepared.by_addresses(stored)
            if without is not None:
                self._addressed = kernel, without, _Stamp.of(stored)
        else:
            self._hold(kernel, prepared)
        return prepared, held

    def release(self) -> None:
        """Hold the weight as it is stored, and nothing beside it."""
        self._addressed = None
        first = self._first()
        entry = self._prepared.get(first)
        if entry is None:
            return
        name = entry.prepared.replaces
        if name is not None:
            stored = self._stored(name)
            if self._buffers[_PREFIX + name] is first:
                self._buffers[_PREFIX + name] = stored
        self._prepared.pop(first, None)

    def allow_unpacked(self, allowed: bool) -> None:
        """Let the kernel hold the weight unpacked beside the stored one, or no longer."""
        self.may_hold_unpacked = allowed
        self._addressed = None
        prepared = self.prepared
        if not allowed and prepared is not None and prepared.replaces is None:
            self.release()

    def _hold(self, kernel: Kernel, prepared: Prepared) -> None:
        key, name = self._first(), prepared.replaces
        device = key.device
        if name is not None:
            assert isinstance(prepared, Replacement), "only a Replacement gives a tensor back"
            replaced = self.get_buffer(_PREFIX + name)
            assert replaced is key, "a kernel replaces the first stored tensor, or none"
            key = torch.empty_like(replaced, device="meta")
        # In this order: whoever finds the placeholder finds what it stands for.
        self._prepared[key] = _Entry(kernel, prepared, _Stamp.of(self._held(name)), device)
        if name is not None:
            self._buffers[_PREFIX + name] = key
            give_back(replaced)

    def _entry(self) -> _Entry | None:
        """The prepared weight, if that which it was made of is still the same."""
        entry = self._prepared.get(self._first())
        if entry is None:
            return None
        if not entry.stamp.fits(self._held(entry.prepared.replaces)):
            self.release()
            return None
        return entry

    def _first(self) -> Tensor:
        tensor = self._buffers[_PREFIX + self.weight_names[0]]
        assert tensor is not None
        return tensor

    def _held(self, replaced: str | None) -> list[Tensor]:
        """The stored tensors but for one."""
        buffers = self._buffers
        found = (buffers[_PREFIX + name] for name in self.weight_names if name != replaced)
        return [tensor for tensor in found if tensor is not None]

    def _stored(self, name: str) -> Tensor:
        """A tensor as it is stored; one that is replaced is made anew."""
        key = _PREFIX + name
        while True:
            buffer = self.get_buffer(key)
            if not buffer.is_meta:
                return buffer
            entry = self._prepared.get(buffer)
            if entry is not None:
                assert isinstance(entry.prepared, Replacement)
                with torch.inference_mode(False):
                    return entry.prepared.stored()
            if self._buffers[key] is buffer:
                return buffer
            # Another thread has just put the stored tensor back.

    def __getstate__(self) -> dict[str, Any]:
        self.release()
        return self.__dict__ | {
            "_buffers": dict(self._buffers),
            "_prepared": None,
            "_addressed": None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._prepared = _by_tensor()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.release()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in self.weight_names:
            key = prefix + _PREFIX + name
            if key in destination and destination[key].is_meta:
                destination[key] = self._stored(name)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.release()
        super()._load_from_state_dict(*args, **kwargs)
