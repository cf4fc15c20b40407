"""The faster of two kernels of 8-bit products, measured here once for each class of layers.

What was measured is kept in `kernels` of the cache folder, a file for each machine; a process reads
it once, so that a layer's kernel does not change while it runs.
"""

from __future__ import annotations

import json
import math
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock

import torch

from mezzotint._cache import cache_folder
from mezzotint.errors import UsageError
from mezzotint.formats import parse_activation_format, parse_weight_format
from mezzotint.runtime.cpu import processor
from mezzotint.runtime.cpu.int8 import unpacked_once
from mezzotint.runtime.cpu.machine import Machine
from mezzotint.runtime.geometry import ConvGeometry
from mezzotint.runtime.kernels import Kernel, KernelRefusedError, Request
from mezzotint.runtime.operands import Conv2d, InputQuantizer, Linear, PackedWeight

#: Names the kernel of 8-bit products, where it serves a layer; nothing is measured then.
SWITCH = "MEZZOTINT_INT8"
#: A kernel must be that many times as fast as the one that is asked first: clocks are not exact,
#: and outputs differ by roundings.
_CLEARLY = 1.1
_ROUNDS = 3


@dataclass(frozen=True)
class LayerClass:
    """Layers that are measured as one.

    Attributes:
        windows: whether it is a convolution of more than one tap.
        held: whether the weight stays in the layout of products, as one of 8 bits does.
        large: whether it has more weights than fit into a core's cache.
    """

    windows: bool
    held: bool
    large: bool

    @classmethod
    def of(cls, request: Request) -> LayerClass:
        """The class of a layer."""
        windows = math.prod(request.shape[2:]) > 1
        return cls(windows, unpacked_once(request.forms), math.prod(request.shape) > 1 << 18)

    @property
    def name(self) -> str:
        """Key in the file of measurements."""
        kind, size = "windows" if self.windows else "rows", "large" if self.large else "small"
        return f"{kind}, {'held' if self.held else 'unpacked'}, {size}"

    def seconds(self, kernels: tuple[Kernel, ...]) -> dict[str, float]:
        """The least time of a call of each kernel that computes a layer of this class."""
        outputs, channels = (512, 1152) if self.large else (160, 320)
        shape: tuple[int, ...] = (outputs, channels)
        operation: Linear | Conv2d = Linear()
        x = torch.randn(256, channels, device="cpu")
        if self.windows:
            shape = (outputs, channels // 8, 3, 3)
            operation = Conv2d(ConvGeometry((3, 3), padding=((1, 1), (1, 1))))
            x = torch.randn(1, channels // 8, 16, 16, device="cpu")
        x = x.to(torch.bfloat16 if processor.BFLOAT16 else torch.float32)
        weight_format = parse_weight_format("int8/channel" if self.held else "int4/channel")
        activation = parse_activation_format("int8/token")
        assert weight_format is not None
        assert activation is not None
        layout = weight_format.layout(shape)
        with torch.device("cpu"):
            tensors = {name: spec.zeros() for name, spec in layout.items()}
        weight, quantizer = PackedWeight(weight_format, tensors, shape), InputQuantizer(activation)
        request = Request(operation, "cpu", weight_format, shape, activation)
        found: dict[str, float] = {}
        serving = [each for each in kernels if each.refuse(request) is None]
        with torch.inference_mode(), suppress(KernelRefusedError):
            ready = [(each, each.prepare(weight, operation)) for each in serving]
            for _ in range(1 + _ROUNDS):
                for kernel, prepared in ready:
                    start = time.perf_counter()
                    kernel.run(prepared, x, quantizer, None)
                    took = time.perf_counter() - start
                    found[kernel.name] = min(found.get(kernel.name, math.inf), took)
        return found


def faster_than(first: Kernel, other: Kernel, request: Request) -> bool:
    """Return whether `other` was measured to be clearly faster than `first` at such layers.

    Raises:
        UsageError: `MEZZOTINT_INT8` names neither.
    """
    asked = os.environ.get(SWITCH)
    if asked:
        if asked not in (first.name, other.name):
            raise UsageError(f"{SWITCH} is {asked!r}; name {first.name!r} or {other.name!r}")
        return asked == other.name
    found = _measured(LayerClass.of(request), first, other)
    if first.name not in found or other.name not in found:
        return False
    return found[first.name] > _CLEARLY * found[other.name]


_MEASURING = Lock()
_FOUND: dict[LayerClass, dict[str, float]] = {}


def _measured(of: LayerClass, first: Kernel, other: Kernel) -> dict[str, float]:
    """Seconds of kernels at a class of layers, measured now unless they are known."""
    with _MEASURING:
        if of not in _FOUND:
            known = _stored()
            if of.name not in known:
                known[of.name] = of.seconds((first, other))
                _store(known)
            _FOUND[of] = known[of.name]
        return _FOUND[of]


def _file() -> Path:
    return cache_folder() / "kernels" / f"{Machine.here().key}.json"


@cache
def _stored() -> dict[str, dict[str, float]]:
    """Measurements of before on this machine; none where they cannot be read."""
    with suppress(OSError, ValueError, AttributeError, TypeError):
        found = json.loads(_file().read_text("utf-8"))
        return {
            str(of): {str(kernel): float(seconds) for kernel, seconds in each.items()}
            for of, each in found.items()
        }
    return {}


def _store(known: dict[str, dict[str, float]]) -> None:
    """Keep it for later processes, where there is a place for it."""
    path = _file()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(known, indent=1), "utf-8")
        temporary.replace(path)
