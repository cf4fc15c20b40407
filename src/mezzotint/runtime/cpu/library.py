"""The compiled C functions, where the package was built with them for this platform."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

#: Of the functions and their structures; products.c has the same. Libraries of others are not used.
VERSION = 2
#: Set to 0, mezzotint does without its C functions.
SWITCH = "MEZZOTINT_NATIVE"

#: What they work on, the range that one call does of it, and which of several threads calls.
_PART = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_PARTS = (
    "mz_unpack", "mz_dequantize", "mz_look_up", "mz_peaks", "mz_quantize", "mz_quantize_pixels",
    "mz_rescale", "mz_panels", "mz_multiply",
)  # fmt: skip


@cache
def library() -> ctypes.CDLL | None:
    """The compiled library beside this file, if there is one for this platform."""
    if os.environ.get(SWITCH) == "0":
        return None
    for path in sorted(Path(__file__).parent.glob("_kernels.*")):
        try:
            return _declared(ctypes.CDLL(str(path)))
        except (OSError, AttributeError):
            # Of another platform, or of another version of this file.
            continue
    return None


def build() -> str:
    """Which library computes: digits that no other build has, or `none`."""
    found = library()
    return "none" if found is None else sha256(Path(found._name).read_bytes()).hexdigest()[:12]


@cache
def function(name: str) -> Any:
    """One of the functions; ask whether there is a library first."""
    found = library()
    assert found is not None, "there is no library"
    return getattr(found, name)


def fields(**names: str) -> list[tuple[str, Any]]:
    """Fields of a structure: names in the order of the C file, under the type they have in common.

    `fields(pointers="packed out", longs="count")` are two pointers and an int64.
    """
    types = {
        "pointers": ctypes.c_void_p,
        "longs": ctypes.c_int64,
        "ints": ctypes.c_int32,
        "floats": ctypes.c_float,
    }
    return [(name, types[kind]) for kind, group in names.items() for name in group.split()]


def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
    for name in _PARTS:
        part = getattr(found, name)
        part.argtypes, part.restype = _PART, None
    found.mz_share.argtypes = (
        ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3,
    )  # fmt: skip
    found.mz_share.restype = None
    for name in ("mz_products", "mz_version"):
        getattr(found, name).argtypes, getattr(found, name).restype = (), ctypes.c_int64
    if found.mz_version() != VERSION:
        raise OSError("built of another version's sources")
    return found
