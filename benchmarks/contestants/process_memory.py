"""Memory of a process, and of a module's tensors."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from pathlib import Path

import torch
from torch import Tensor, nn


def resident_bytes() -> int:
    """Resident memory of this process."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """Highest resident memory since `reset_peak`, or of the whole process without /proc."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Start the peak anew (Linux). Freed memory goes back to the system first."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc
        if trim is not None:
            trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def available_bytes() -> int | None:
    """Memory that can be had without swapping; None where the system does not say."""
    path = Path("/proc/meminfo")
    if not path.is_file():
        return None
    fields = dict(line.split(":") for line in path.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def _status(field: str) -> int:
    path = Path("/proc/self/status")
    if path.is_file():
        fields = dict(line.split(":", 1) for line in path.read_text().splitlines())
        return int(fields[field].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def tensor_bytes(module: nn.Module) -> int:
    """Bytes of a module's parameters and persistent buffers, looking into wrapped tensors."""
    seen: dict[int, int] = {}
    for tensor in module.state_dict(keep_vars=True).values():
        if isinstance(tensor, Tensor):
            for plain in plain_tensors(tensor):
                seen[id(plain)] = plain.numel() * plain.element_size()
    return sum(seen.values())


def plain_tensors(tensor: Tensor) -> list[Tensor]:
    """The tensors inside a tensor subclass, or the tensor itself."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None or type(tensor) in (Tensor, nn.Parameter):
        return [tensor]
    names, _ = flatten()
    return [plain for name in names for plain in plain_tensors(getattr(tensor, name))]


def synchronize() -> None:
    """Wait for the accelerator, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
