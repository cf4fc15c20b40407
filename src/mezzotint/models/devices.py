"""Devices that a pipeline can be on, and what is said of those that it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mezzotint.errors import ModelError, first_line


def usable_device(device: torch.device | str) -> torch.device:
    """A device that tensors can be on, and are computed on.

    Raises:
        ModelError: there is none of that name here, or it is meta, whose tensors have no values.
    """
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as cause:  # its text lists all that torch knows
        raise ModelError(_refusal(device, "no device has that name")) from cause
    if place.type == "meta":
        raise ModelError(_refusal(device, "its tensors have no values"))
    with told_of_device(device):
        return torch.empty(0, device=place).device


@contextmanager
def told_of_device(device: torch.device | str) -> Iterator[None]:
    """Turn what torch raises where a device cannot be used into one sentence.

    Raises:
        ModelError: naming the device, and those that are here.
    """
    try:
        yield
    except (RuntimeError, AssertionError, NotImplementedError) as cause:
        raise ModelError(_refusal(device, first_line(cause).rstrip("."))) from cause


def _refusal(device: torch.device | str, why: str) -> str:
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    here = "cpu" if found is None else f"cpu or {found.type}"
    return (
        f"{device}: cannot be used ({why}); name one that is here and has room (--device): {here}"
    )
