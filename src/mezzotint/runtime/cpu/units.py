"""The vector units that multiply, as far as the package's C functions know them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

from mezzotint.errors import UsageError
from mezzotint.runtime.cpu import library

#: Names a unit that is to multiply instead of the fastest, as for a comparison.
SWITCH = "MEZZOTINT_UNIT"


@dataclass(frozen=True)
class Unit:
    """A vector unit of this processor.

    Attributes:
        number: by which the C functions know it.
        name: of its instructions.
    """

    number: int
    name: str

    def together(self, width: int) -> int:
        """Weights of `width` bits that are multiplied to one sum, side by side in a panel."""
        return int(library.function("mz_together")(self.number, width))


def units() -> tuple[Unit, ...]:
    """The units that this processor has and the library knows, fastest first."""
    return () if library.library() is None else _units()


def unit() -> Unit | None:
    """The unit that multiplies: the fastest, or the one that `MEZZOTINT_UNIT` names.

    Raises:
        UsageError: this processor has no unit of that name.
    """
    known, asked = units(), os.environ.get(SWITCH)
    if not asked:
        return known[0] if known else None
    for each in known:
        if each.name == asked:
            return each
    names = ", ".join(each.name for each in known) or "none"
    raise UsageError(f"{SWITCH} is {asked!r}, but the units here are: {names}")


def unit_name() -> str:
    """The name of the unit that multiplies; `none` where there is none."""
    found = unit()
    return "none" if found is None else found.name


@cache
def _units() -> tuple[Unit, ...]:
    found, number = [], 0
    while (name := library.function("mz_unit")(number)) is not None:
        if name:
            found.append(Unit(number, name.decode()))
        number += 1
    return tuple(found)
