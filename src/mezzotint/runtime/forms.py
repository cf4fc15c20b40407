"""Other forms of a stored weight, which kernels keep instead of it or beside it."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mezzotint.runtime.pages import give_back

_CODES = "weight_codes"
_KEPT = "_mezzotint_kept"


class Kept(Protocol):
    """Codes in a kernel's own layout."""

    def codes(self) -> Tensor:
        """As they are stored."""


@dataclass(frozen=True)
class _Stamp:
    """Which tensors something was made of, and in which state."""

    tensors: tuple[tuple[weakref.ref[Tensor], int], ...]

    @classmethod
    def of(cls, tensors: Iterable[Tensor]) -> _Stamp:
        # Inference tensors count no versions.
        return cls(tuple((weakref.ref(t), 0 if t.is_inference() else t._version) for t in tensors))

    def fits(self, tensors: Iterable[Tensor]) -> bool:
        """Whether these are the same tensors, unchanged."""
        other = _Stamp.of(tensors).tensors
        return len(other) == len(self.tensors) and all(
            one[0]() is two[0]() and one[1] == two[1]
            for one, two in zip(self.tensors, other, strict=True)
        )


def stands_for_codes(buffer: Tensor) -> bool:
    """Whether a tensor is only the place of codes that are kept in another form."""
    return hasattr(buffer, _KEPT)


class WeightForms(nn.Module):
    """Lets kernels keep forms of a weight that make no difference to anybody else.

    Codes that are kept in another layout hang on the placeholder that stands in the buffer for
    them: whoever puts something else there, for a while or for good, takes them away with it.
    """

    _held: tuple[_Stamp, object] | None = None
    #: Whether kernels may hold the weight unpacked between calls, beside the stored one.
    may_hold_unpacked: bool = False

    @property
    def held(self) -> object:
        """What a kernel made of the stored weight, as long as that is the same; None without."""
        held = self._held
        return held[1] if held is not None and held[0].fits(self._stored()) else None

    def hold(self, unpacked: object) -> None:
        """Keep a kernel's own form of the weight beside the stored one."""
        self._held = _Stamp.of(self._stored()), unpacked

    def forget_unpacked(self) -> None:
        """Let go of what `hold` keeps."""
        self._held = None

    @property
    def kept(self) -> Kept | None:
        """What stands in for the codes at present."""
        found = getattr(self._buffers.get(_CODES), _KEPT, None)
        if found is None:
            return None
        kept, stamp = found
        if not stamp.fits(self._others()):
            self.release()
            return None
        result: Kept = kept
        return result

    def keep(self, kept: Kept) -> None:
        """Hold the codes as a kernel wants them, instead of as they are stored.

        State dictionaries, copies and moved layers have them as before; the buffer itself is on
        the meta device as long.
        """
        codes = self.get_buffer(_CODES)
        placeholder = torch.empty_like(codes, device="meta")
        setattr(placeholder, _KEPT, (kept, _Stamp.of(self._others())))
        self._buffers[_CODES] = placeholder
        give_back(codes)

    def release(self) -> None:
        """Hold the codes as they are stored."""
        placeholder = self._buffers.get(_CODES)
        if hasattr(placeholder, _KEPT):
            codes = self.stored(_CODES)
            if self._buffers[_CODES] is placeholder:
                self._buffers[_CODES] = codes

    def stored(self, name: str) -> Tensor:
        """A buffer as it is stored; codes that are kept in another form are made anew."""
        buffer = self.get_buffer(name)
        found = getattr(buffer, _KEPT, None)
        if found is None:
            return buffer
        with torch.inference_mode(False):
            codes: Tensor = found[0].codes()
        return codes

    def _stored(self) -> list[Tensor]:
        return [tensor for tensor in self._buffers.values() if tensor is not None]

    def _others(self) -> list[Tensor]:
        """What is stored beside the codes."""
        return [t for name, t in self._buffers.items() if t is not None and name != _CODES]

    def __getstate__(self) -> dict[str, Any]:
        self.release()
        return self.__dict__ | {"_buffers": dict(self._buffers), "_held": None}

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.release()
        self.forget_unpacked()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        key = prefix + _CODES
        if key in destination and destination[key].is_meta:
            destination[key] = self.stored(_CODES)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.release()
        super()._load_from_state_dict(*args, **kwargs)
