"""The registry of kernels: who computes a quantized layer, and why not somebody faster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from mezzotint._plugins import load_plugins
from mezzotint.formats import ActivationFormat, WeightFormat
from mezzotint.runtime.geometry import ConvGeometry

if TYPE_CHECKING:
    from mezzotint.runtime.layer import QuantLayer

Operation = Literal["linear", "conv2d"]


@dataclass(frozen=True)
class Request:
    """What a layer asks of a kernel."""

    operation: Operation
    device: str
    weight: WeightFormat
    activation: ActivationFormat | None
    geometry: ConvGeometry | None = None
    #: Weights of one output.
    columns: int = 1

    @property
    def groups(self) -> int:
        """Groups of channels that are convolved apart."""
        return 1 if self.geometry is None else self.geometry.groups


class KernelRefusedError(Exception):
    """A kernel found while it ran that it cannot serve a layer; it refuses its requests since."""


class Kernel(ABC):
    """Computes a quantized layer on packed weights."""

    #: Short name, as shown in reports.
    name: str
    #: What the products are computed in; `float` means operands are dequantized first.
    arithmetic: Literal["float", "int8"]
    #: The only device it knows; None for all.
    device: str | None = None
    #: Whether compilers cannot trace it and gradients not pass through it.
    opaque: bool = False

    @abstractmethod
    def refuse(self, request: Request) -> str | None:
        """Why this kernel cannot serve the request; None when it can."""

    def unpacked_bytes(self, layer: QuantLayer) -> int:
        """What holding a layer's weight unpacked between calls takes, beside what is stored."""
        return 0

    @abstractmethod
    def run(self, layer: QuantLayer, x: Tensor) -> Tensor:
        """The layer's output for input `x`, in the dtype of `x`, bias included.

        Raises:
            KernelRefusedError: it cannot compute this layer after all; another kernel is chosen.
        """


@dataclass(frozen=True)
class Selection:
    """The kernel chosen for a layer, and why every preferred one of its device refused."""

    kernel: Kernel
    refusals: tuple[tuple[str, str], ...] = ()

    @property
    def reason(self) -> str | None:
        """One line for reports; None where the preferred kernel runs."""
        return "; ".join(f"{name}: {why}" for name, why in self.refusals) or None


_KERNELS: list[Kernel] = []


def register_kernel(kernel: Kernel, *, preferred: bool = True) -> Kernel:
    """Add a kernel: before all others when preferred, else after them."""
    if preferred:
        _KERNELS.insert(0, kernel)
    else:
        _KERNELS.append(kernel)
    return kernel


def registered_kernels() -> tuple[Kernel, ...]:
    """All kernels, most preferred first."""
    _load_plugins()
    return tuple(_KERNELS)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _load_plugins() -> None:
    """Import kernels of other packages; a compiler that traces the selection does it right away."""
    load_plugins("kernels")


def select_kernel(request: Request, *, differentiable: bool = False) -> Selection:
    """The first registered kernel that accepts the request; on demand one that gradients pass.

    The reference kernel accepts everything, so there always is one.
    """
    refusals: list[tuple[str, str]] = []
    for kernel in registered_kernels():
        if kernel.device not in (None, request.device):
            continue
        hidden = differentiable and kernel.opaque
        why = "has no gradient" if hidden else kernel.refuse(request)
        if why is None:
            return Selection(kernel, tuple(refusals))
        refusals.append((kernel.name, why))
    raise LookupError(f"no kernel accepts {request}; is the reference kernel registered?")
