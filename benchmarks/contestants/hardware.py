"""Hardware and versions that a figure was measured on."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

#: Instructions that decide how fast low precision is.
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
         "asimddp", "i8mm", "bf16", "sve")  # fmt: skip
FAST_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}


def describe(device: str, threads: int) -> dict[str, Any]:
    """The machine as a value; `name` tells one from another."""
    cpu = _cpu()
    found = {
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "family": "/".join(cpu.get(key, "?") for key in ("cpu family", "model")),
        "flags": sorted(flags() & set(FLAGS)),
        "processors": os.cpu_count(),
        "memory_bytes": _memory(),
        "threads": threads,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mezzotint": metadata.version("mezzotint"),
    }
    if device == "cuda":
        found["device"] = torch.cuda.get_device_name()
        found["cuda"] = torch.version.cuda
    return found | {"name": name(found)}


def name(machine: dict[str, Any]) -> str:
    """One line for headings; rows with another are never compared."""
    if "device" in machine:
        return f"{machine['device']}, torch {machine['torch']}"
    flags = ", ".join(machine["flags"]) or "no vector flags known"
    return (
        f"{machine['cpu']} (family {machine['family']}; {flags}), {machine['threads']} threads, "
        f"torch {machine['torch']}"
    )


def flags() -> set[str]:
    """Instruction set extensions by the kernel's names; empty where it does not tell."""
    cpu = _cpu()
    return set((cpu.get("flags") or cpu.get("Features") or "").split())


def fast_dtype(device: str) -> str:
    """Dtype of the unquantized parts: 16 bits where the device is fast at it."""
    if device == "cuda":
        return "float16"
    return "bfloat16" if flags() & FAST_BF16 else "float32"


def _cpu() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first = path.read_text().split("\n\n", maxsplit=1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _memory() -> int | None:
    if not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
