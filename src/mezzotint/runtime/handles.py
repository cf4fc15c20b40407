"""Numbers by which operations that compilers do not look into find objects of this process."""

from __future__ import annotations

import weakref
from itertools import count
from typing import Generic, TypeVar

_T = TypeVar("_T")

_FEW = 1024


class Handles(Generic[_T]):
    """Objects by number, each for as long as it lives."""

    def __init__(self) -> None:
        # Without callbacks: an interrupt that arrives within one would be swallowed.
        self._found: dict[int, weakref.ref[_T]] = {}
        self._numbers = count()

    def handle_of(self, value: _T) -> int:
        """A number by which `find` gives `value` back."""
        handle = next(self._numbers)
        if handle % _FEW == _FEW - 1:
            for dead in [key for key, found in list(self._found.items()) if found() is None]:
                self._found.pop(dead, None)
        self._found[handle] = weakref.ref(value)
        return handle

    def find(self, handle: int) -> _T:
        """The object with that number, which must be alive."""
        found = self._found[handle]()
        assert found is not None, "the object is gone"
        return found
