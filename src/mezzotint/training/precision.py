"""The precision that training computes in: on processors and GPUs, with bfloat16 or without."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from mezzotint.runtime.cpu.processor import BFLOAT16


@dataclass(frozen=True)
class Precision:
    """A precision of forward and backward passes; what is trained is float32 at all times.

    Attributes:
        device: type of the device, such as `cuda`.
        autocast: dtype that products are computed in; None for that of the model.
        scaled: whether the loss is multiplied by a large number, and gradients are divided by it,
            so that those of float16 do not vanish.
    """

    device: str
    autocast: torch.dtype | None = None
    scaled: bool = False

    def computing(self) -> AbstractContextManager[object]:
        """A block for passes of this precision."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device, dtype=self.autocast)


def chosen_precision(
    device: str, dtype: torch.dtype, *, bfloat16: bool, wanted: bool | None = None
) -> Precision:
    """The precision for a model on a device.

    Half of the bits where the device computes in them: bfloat16 first, whose range is that of
    float32; on GPUs without it float16, on CPUs never.

    Args:
        device: type of the device.
        dtype: of the model.
        bfloat16: whether the device computes in bfloat16.
        wanted: whether to compute in half of the bits; None for where that is faster.
    """
    autocast: torch.dtype | None = None
    if device == "cuda" and wanted is not False:
        autocast = torch.bfloat16 if bfloat16 else torch.float16
    elif device == "cpu" and (bfloat16 if wanted is None else wanted):
        autocast = torch.bfloat16
    return Precision(device, autocast, torch.float16 in (dtype, autocast))


def precision_of(device: torch.device, dtype: torch.dtype, wanted: bool | None) -> Precision:
    """The precision for a model of that dtype on a device of this machine; see there."""
    if device.type == "cuda":
        # Older GPUs emulate bfloat16, slower than they compute in float32.
        bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        bfloat16 = BFLOAT16
    return chosen_precision(device.type, dtype, bfloat16=bfloat16, wanted=wanted)
