"""The registry of kernels: who computes a quantized layer, and why not somebody faster."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import Tensor
from typing_extensions import override

from mezzotint._plugins import Registry, load_plugins
from mezzotint.formats import ActivationFormat, Segment, Shape, WeightFormat
from mezzotint.runtime.operands import InputQuantizer, Operation, PackedWeight


@dataclass(frozen=True)
class Request:
    """A layer that needs a kernel.

    Attributes:
        operation: Linear, or Conv2d with its geometry.
        device: type of the device that it runs on.
        weight: format of its weight.
        shape: of its weight.
        activation: format of its input; None for floating.
    """

    operation: Operation
    device: str
    weight: WeightFormat
    shape: Shape
    activation: ActivationFormat | None

    @property
    def columns(self) -> int:
        """Weights of one output."""
        return math.prod(self.shape[1:])

    @cached_property
    def forms(self) -> tuple[Segment, ...]:
        """The canonical forms of the weight, without values."""
        return self.weight.forms(self.shape)


class KernelRefusedError(Exception):
    """A kernel found while it ran that it cannot serve a layer; it refuses such layers since."""


class Prepared(ABC):
    """A weight as a kernel multiplies it; a layer holds what its kernel prepared."""

    @property
    def views_stored(self) -> bool:
        """True where it views stored tensors; it is then made anew, or goes by their addresses.

        Whoever moves weights to a device for a call would not get their memory back otherwise.
        """
        return False

    def by_addresses(self, stored: Iterable[Tensor]) -> Prepared | None:
        """The same without the stored tensors that it views, but with their addresses.

        It serves as long as they are all the same, and held by whoever calls. None where a kernel
        does without; the weight is then prepared at every call.
        """
        return None

    @property
    def replaces(self) -> str | None:
        """The stored tensor that this one stands for, by its name in the format's layout.

        The layer holds it no longer. None where the weight is held as it is stored, too; only a
        `Replacement` may replace one.
        """
        return None

    @property
    @abstractmethod
    def extra_bytes(self) -> int:
        """Bytes that are held beside what is stored of the weight."""


class Replacement(Prepared):
    """A prepared weight from which a stored tensor can be had again, and which may replace it."""

    @abstractmethod
    def stored(self) -> Tensor:
        """The tensor that this one `replaces`, bit for bit; asked only where it replaces one."""


@dataclass(frozen=True, eq=False)
class AsStored(Prepared):
    """A weight that its kernel reads as it is stored, at every call."""

    weight: PackedWeight
    operation: Operation

    @property
    @override
    def views_stored(self) -> bool:
        return True

    @property
    @override
    def extra_bytes(self) -> int:
        return 0


class Kernel(ABC):
    """A way of computing quantized layers on packed weights."""

    #: Short name, as shown in reports; no other kernel has it.
    name: str
    #: The arithmetic of the products; `float` means that operands are dequantized first.
    arithmetic: Literal["float", "int8"]
    #: The only device it knows; None for all.
    device: str | None = None
    #: True where compilers cannot trace it and gradients do not pass through it.
    opaque: bool = False

    @abstractmethod
    def refuse(self, request: Request) -> str | None:
        """Reason why this kernel cannot serve the request; None when it can."""

    def slower_than(self, request: Request) -> str | None:
        """The name of a kernel that is faster at a request which this one accepts, as measured."""
        return None

    def unpacked_bytes(self, request: Request) -> int:
        """Bytes that `prepare` holds beside what is stored, if it may unpack the weight."""
        return 0

    def prepare(
        self, weight: PackedWeight, operation: Operation, *, unpack: bool = False
    ) -> Prepared:
        """The weight as `run` wants it: once for many calls.

        Args:
            weight: of a request that was not refused.
            operation: that of the request.
            unpack: whether the weight may be held unpacked beside what is stored.
        """
        return AsStored(weight, operation)

    @abstractmethod
    def run(
        self, prepared: Prepared, x: Tensor, quantizer: InputQuantizer | None, bias: Tensor | None
    ) -> Tensor:
        """The output for input `x`, in its dtype, bias included.

        Args:
            prepared: by this kernel.
            x: on the kernel's device.
            quantizer: of the input; None where it stays floating.
            bias: floating [out].

        Raises:
            KernelRefusedError: it cannot compute this layer after all; another kernel is chosen.
        """


@dataclass(frozen=True)
class Selection:
    """The kernel chosen for a layer, and why every preferred one of its device refused it."""

    kernel: Kernel
    refusals: tuple[tuple[str, str], ...] = ()

    @property
    def reason(self) -> str | None:
        """One line for reports; None where the preferred kernel runs."""
        names: dict[str, list[str]] = {}
        for name, why in self.refusals:
            names.setdefault(why, []).append(name)
        return "; ".join(f"{', '.join(each)}: {why}" for why, each in names.items()) or None


_KERNELS: Registry[Kernel] = Registry("kernels", "kernel")


def register_kernel(kernel: Kernel, *, preferred: bool = True) -> Kernel:
    """Add a kernel: before all others when preferred, else after them.

    Raises:
        UsageError: there is one of its name.
    """
    _KERNELS.add(kernel.name, kernel, type(kernel), first=preferred)
    return kernel


def registered_kernels() -> tuple[Kernel, ...]:
    """All kernels, most preferred first."""
    _load_plugins()
    return tuple(_KERNELS.items.values())


def _load_plugins() -> None:
    """Import kernels of other packages; a compiler that traces the selection does it right away."""
    load_plugins("kernels")


# The mark of torch.compiler.assume_constant_result, which would import the whole compiler.
_load_plugins._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _refusal(kernel: Kernel, request: Request) -> str | None:
    """Reason why a kernel cannot serve a request, be it one of its own or one of all its kind."""
    activation = request.activation
    if kernel.arithmetic != "float" and activation is not None and activation.simulated:
        return f"{activation} varies along the sum, which no integers can compute"
    return kernel.refuse(request)


def _faster(kernel: Kernel, request: Request) -> Kernel | None:
    """The kernel that was measured to be faster at a request, if it accepts that."""
    faster = _KERNELS.items.get(kernel.slower_than(request) or "")
    return faster if faster is not None and _refusal(faster, request) is None else None


def select_kernel(request: Request, *, differentiable: bool = False) -> Selection:
    """The first registered kernel that accepts the request; on demand one that gradients pass.

    The reference kernel accepts everything, so there always is one.
    """
    refusals: list[tuple[str, str]] = []
    for kernel in registered_kernels():
        if kernel.device not in (None, request.device):
            continue
        hidden = differentiable and kernel.opaque
        why = "has no gradient" if hidden else _refusal(kernel, request)
        if why is None:
            return Selection(_faster(kernel, request) or kernel, tuple(refusals))
        refusals.append((kernel.name, why))
    raise LookupError(f"no kernel accepts {request}; is the reference kernel registered?")
