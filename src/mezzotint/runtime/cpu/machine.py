"""Processor, threads and versions: everything but the model that a measured time depends on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

import torch

from mezzotint.runtime.cpu import library, units

_INSTRUCTIONS = frozenset(
    {
        *("avx", "avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16"),
        *("avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
        *("asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2"),
    }
)
"""Instruction sets, by Linux' names, that decide how fast products are."""


_Device: TypeAlias = torch.device | str


@dataclass(frozen=True)
class Machine:
    """Two profiles of equal machines may be compared; all others may not.

    Attributes:
        processor: model name of the CPU.
        instructions: which of the instruction sets that matter to products it has.
        threads: that torch computes with.
        device: `cpu`, or the accelerator's name.
        torch: version.
        mezzotint: version.
        functions: which build of mezzotint's C functions, and the unit that multiplies; or `none`.
    """

    processor: str
    instructions: tuple[str, ...]
    threads: int
    device: str
    torch: str
    mezzotint: str
    functions: str

    @classmethod
    def here(cls, device: _Device = "cpu") -> Machine:
        """This machine, computing on `device`, as this process is set up."""
        processor, flags = _processor()
        unit = units.unit()
        return cls(
            processor=processor,
            instructions=tuple(sorted(flags & _INSTRUCTIONS)),
            threads=torch.get_num_threads(),
            device=_device_name(torch.device(device)),
            torch=torch.__version__,
            mezzotint=metadata.version("mezzotint"),
            functions=library.build() if unit is None else f"{library.build()} {unit.name}",
        )

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits that equal machines share."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self) | {"instructions": list(self.instructions)}

    def differences(self, other: Machine) -> str:
        """`threads is 2 there and 1 here`; empty where the machines are equal."""
        pairs = ((f.name, getattr(other, f.name), getattr(self, f.name)) for f in _fields())
        return "; ".join(
            f"{name} is {_shown(there)} there and {_shown(here)} here"
            for name, there, here in pairs
            if there != here
        )


def _fields() -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(Machine)


def _shown(value: Any) -> str:
    return (" ".join(value) or "none known") if isinstance(value, tuple) else str(value)


def _processor() -> tuple[str, frozenset[str]]:
    """Name and flags; where the system does not tell, what torch makes of the processor."""
    found: dict[str, str] = {}
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            found.setdefault(name.strip().lower(), value.strip())
    name = found.get("model name") or platform.processor() or platform.machine()
    flags = found.get("flags") or found.get("features") or torch.backends.cpu.get_cpu_capability()
    return name, frozenset(flags.lower().split())


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
