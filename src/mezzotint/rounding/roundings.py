"""Names of roundings, as they stand in plans."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from mezzotint._plugins import Registry
from mezzotint.errors import FormatError
from mezzotint.formats import Codes, Grid

#: Chooses codes of a grid for a weight [out_channels, …].
Rounding = Callable[[Tensor, Grid], Codes]

_ROUNDINGS: Registry[Rounding] = Registry("roundings", "rounding", FormatError)


def register_rounding(name: str) -> Callable[[Rounding], Rounding]:
    """Add a rounding under the name by which plans know it.

    Raises:
        UsageError: there is one of that name.
    """

    def register(rounding: Rounding) -> Rounding:
        _ROUNDINGS.add(name, rounding, rounding)
        return rounding

    return register


def rounding_named(name: str) -> Rounding:
    """The rounding called `name`.

    Raises:
        FormatError: there is none; the message lists them.
    """
    return _ROUNDINGS.named(name)
