"""Biases, and weights of norms, that are trained beside the floating ones of the teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mezzotint.formats import straight_through
from mezzotint.plan import Tensors
from mezzotint.runtime.pack import storable


class FloatingValues:
    """Values that some of a denoiser's parameters have in its student.

    Attributes:
        fixed: dotted name → value that training does not change.
        learned: dotted name → trained value.
    """

    def __init__(self, denoiser: nn.Module, fixed: Tensors, learned: Iterator[str]) -> None:
        """Start from `fixed` values, or those of the denoiser.

        Args:
            denoiser: floating.
            fixed: dotted name → value that differs from the denoiser's.
            learned: names of parameters that are trained.
        """
        self._denoiser = denoiser
        self.learned: dict[str, nn.Parameter] = {}
        for name in learned:
            start = fixed.get(name, denoiser.get_parameter(name)).detach()
            self.learned[name] = nn.Parameter(start.to(torch.float32, copy=True))
        self.fixed = {name: value for name, value in fixed.items() if name not in self.learned}

    def values(self) -> dict[str, Tensor]:
        """The values as they will be stored, in the denoiser's dtypes; differentiable."""
        found: dict[str, Tensor] = dict(self.fixed)
        for name, value in self.learned.items():
            owner, own = _owner(self._denoiser, name)
            rounded = storable(owner, own, value.detach().to(owner.get_parameter(own).dtype))
            found[name] = straight_through(rounded, value.to(rounded.dtype))
        return found

    @contextmanager
    def standing_in(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Let whoever reads the parameters find `values`, for a while; the parameters stay."""
        # Attributes of the instance are found before parameters.
        places = [(vars(module), own, values[name]) for name in values for module, own in [
            _owner(self._denoiser, name)]]  # fmt: skip
        try:
            for attributes, own, value in places:
                attributes[own] = value
            yield
        finally:
            for attributes, own, _ in places:
                attributes.pop(own, None)


def biases_and_norms(denoiser: nn.Module) -> Iterator[str]:
    """Names of all biases, and of all parameters of norms."""
    for path, module in denoiser.named_modules():
        norm = "Norm" in type(module).__name__
        for own, _ in module.named_parameters(recurse=False):
            if norm or (own == "bias" and isinstance(module, nn.Linear | nn.Conv2d)):
                yield f"{path}.{own}" if path else own


def _owner(denoiser: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, own = name.rpartition(".")
    return denoiser.get_submodule(path), own
