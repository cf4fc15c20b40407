"""Names of roundings, as they stand in plans."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from mezzotint.errors import FormatError
from mezzotint.formats import Codes, Grid

#: Chooses codes of a grid for a weight [out_channels, …].
Rounding = Callable[[Tensor, Grid], Codes]

_ROUNDINGS: dict[str, Rounding] = {}


def register_rounding(name: str) -> Callable[[Rounding], Rounding]:
    """Add a rounding under the name by which plans know it."""

    def register(rounding: Rounding) -> Rounding:
        _ROUNDINGS[name] = rounding
        return rounding

    return register


def rounding_named(name: str) -> Rounding:
    """The rounding called `name`.

    Raises:
        FormatError: there is none.
    """
    if name not in _ROUNDINGS:
        raise FormatError(
            f"unknown rounding {name!r}; expected {' or '.join(map(repr, _ROUNDINGS))}"
        )
    return _ROUNDINGS[name]
