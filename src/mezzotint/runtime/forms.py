"""Other forms of a stored weight, which kernels keep instead of it or beside it."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

_CODES = "weight_codes"


class Kept(Protocol):
    """Codes in a kernel's own layout."""

    def codes(self) -> Tensor:
        """As they are stored."""


class WeightForms(nn.Module):
    """Lets kernels keep forms of a weight that make no difference to anybody else."""

    _kept: Kept | None = None
    _held: tuple[object, object] | None = None
    #: Whether kernels may hold the weight unpacked between calls, beside the stored one.
    may_hold_unpacked: bool = False

    @property
    def held(self) -> object:
        """What a kernel made of the stored weight, as long as that is the same; None without."""
        if self._held is None or self._held[0] != self._stored_now():
            return None
        return self._held[1]

    def hold(self, unpacked: object) -> None:
        """Keep a kernel's own form of the weight beside the stored one."""
        self._held = self._stored_now(), unpacked

    def forget_unpacked(self) -> None:
        """Let go of what `hold` keeps."""
        self._held = None

    def _stored_now(self) -> object:
        return tuple(
            (id(tensor), tensor._version) for tensor in self._buffers.values() if tensor is not None
        )

    @property
    def kept(self) -> Kept | None:
        """What stands in for the codes at present."""
        if self._kept is not None and not self.get_buffer(_CODES).is_meta:
            # Somebody put other codes in their place.
            self._kept = None
        return self._kept

    def keep(self, kept: Kept) -> None:
        """Hold the codes as a kernel wants them, instead of as they are stored.

        Whoever asks for the stored tensors gets them as before.
        """
        self._kept = kept
        self._buffers[_CODES] = torch.empty_like(self.get_buffer(_CODES), device="meta")

    def release(self) -> None:
        """Hold the codes as they are stored."""
        kept = self.kept
        if kept is not None:
            self._buffers[_CODES] = kept.codes()
            self._kept = None

    def __getstate__(self) -> dict[str, Any]:
        self.release()
        return self.__dict__ | {"_held": None}

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.release()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.release()
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.release()
        super()._load_from_state_dict(*args, **kwargs)
