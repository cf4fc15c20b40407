"""Names of roundings, as they stand in plans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mezzotint._plugins import Registry
from mezzotint.errors import FormatError
from mezzotint.formats import Codes, Grid
from mezzotint.rounding.moments import InputMoments

#: Chooses codes of a grid for a weight [out_channels, …], which multiplies inputs of such moments.
Rounding = Callable[[Tensor, Grid, InputMoments | None], Codes]


@dataclass(frozen=True)
class _Named:
    """A registered rounding, and whether it has to be given the moments of inputs."""

    rounding: Rounding
    needs_moments: bool


_ROUNDINGS: Registry[_Named] = Registry("roundings", "rounding", FormatError)


def register_rounding(name: str, *, needs_moments: bool = False) -> Callable[[Rounding], Rounding]:
    """Add a rounding under the name by which plans know it.

    Args:
        name: a new one.
        needs_moments: whether it cannot do without Gram matrices of the layer's inputs, which are
            then gathered in calibration; None is given to others where nothing is gathered.

    Raises:
        UsageError: there is one of that name.
    """

    def register(rounding: Rounding) -> Rounding:
        _ROUNDINGS.add(name, _Named(rounding, needs_moments), rounding)
        return rounding

    return register


def rounding_named(name: str) -> Rounding:
    """The rounding called `name`.

    Raises:
        FormatError: there is none; the message lists them.
    """
    return _ROUNDINGS.named(name).rounding


def needs_moments(name: str) -> bool:
    """True if the rounding called `name` cannot do without Gram matrices of inputs.

    Raises:
        FormatError: there is none; the message lists them.
    """
    return _ROUNDINGS.named(name).needs_moments
