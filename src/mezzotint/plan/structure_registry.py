"""The structures that there are, ours and those of other packages, by their keys in plans."""

from __future__ import annotations

from typing import TypeVar

from mezzotint._plugins import Registry
from mezzotint.errors import FormatError, UsageError
from mezzotint.plan.structure import Structure

_STRUCTURES: Registry[type[Structure]] = Registry("structures", "structure", FormatError)

_StructureT = TypeVar("_StructureT", bound=Structure)


def register_structure(kind: type[_StructureT]) -> type[_StructureT]:
    """Class decorator: make a structure known under its kind.

    Raises:
        UsageError: it has calibrated tensors, but no observer that finds them, or there is one of
            that kind.
    """
    unwatched = kind.observer is Structure.observer and kind.granularity is None
    if kind.calibrated and unwatched:
        raise UsageError(
            f"the structure {kind.kind} has calibrated tensors, but no observer that finds them; "
            "give it the method `observer`"
        )
    _STRUCTURES.add(kind.kind, kind, kind)
    return kind


def structure_named(kind: str) -> type[Structure]:
    """The structure whose key in plans is `kind`.

    Raises:
        FormatError: there is none; the message lists them.
    """
    return _STRUCTURES.named(kind)
