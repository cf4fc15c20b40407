"""Values of a pipeline's arguments, and what JSON keeps of them: of pictures, a digest."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mezzotint.errors import UsageError

_DIGEST = "$sha256"
"""In JSON: the digest of a picture, tensor or array, which stands for it."""

_TUPLE = "$tuple"


@dataclass(frozen=True)
class Absent:
    """A picture, tensor or array of which JSON has kept only what it was.

    Attributes:
        what: kind and size, for people.
        sha256: digest of its content.
    """

    what: str
    sha256: str


def checked_value(name: str, value: Any) -> Any:
    """The value, its lists and dictionaries copied, NumPy's numbers turned into Python's.

    Raises:
        UsageError: naming the argument, where the value, or one within it, is of a type that can
            neither be told from others nor sent to another process.
    """
    match value:
        case np.generic():
            return checked_value(name, value.item())
        case None | bool() | int() | str() | Image.Image() | Tensor() | Absent():
            return value
        case list() | tuple():
            return type(value)(checked_value(name, item) for item in value)
        case Mapping():
            return {_key(name, key): checked_value(f"{name}.{key}", value[key]) for key in value}
        case float() if math.isfinite(value):
            return value
        case np.ndarray() if value.dtype.kind in "biuf":
            return value
    raise UsageError(f"call_kwargs: {name}: {_advice(value)}")


def _key(name: str, key: object) -> str:
    if not isinstance(key, str) or key.startswith("$"):
        raise UsageError(
            f"call_kwargs: {name}: has the key {key!r}; give strings that do not begin with $"
        )
    return key


def _advice(value: object) -> str:
    """Reason for which a value cannot be given, and what can be in its place."""
    match value:
        case float():
            return f"is {value}; give a finite number"
        case np.ndarray():
            return f"is an array of {value.dtype}; give one of numbers"
        case Path():
            return f"is the path {value}; give the picture itself, as PIL.Image.open reads it"
    return (
        f"is a {type(value).__name__}; give numbers, strings, pictures of PIL, tensors, arrays, or "
        "lists of those"
    )


def value_to_json(value: Any) -> Any:
    """JSON of a value that was checked."""
    match value:
        case Image.Image():
            what = f"picture {value.mode} {value.width}×{value.height}"
            return _digest(what, value.tobytes(), value.getpalette())
        case Tensor():
            kept = value.detach().cpu().contiguous()
            what = f"tensor {str(kept.dtype).removeprefix('torch.')} {list(kept.shape)}"
            return _digest(what, kept.reshape(-1).view(torch.uint8).numpy().tobytes())
        case np.ndarray():
            return _digest(f"array {value.dtype.name} {list(value.shape)}", value.tobytes())
        case Absent():
            return {"what": value.what, _DIGEST: value.sha256}
        case list():
            return [value_to_json(item) for item in value]
        case tuple():
            return {_TUPLE: [value_to_json(item) for item in value]}
        case dict():
            return {key: value_to_json(item) for key, item in value.items()}
    return value


def value_from_json(name: str, value: Any) -> Any:
    """The value that `value_to_json` described; for pictures, tensors and arrays an `Absent`.

    Raises:
        UsageError: naming the argument, where a description is damaged.
    """
    if isinstance(value, list):
        return [value_from_json(name, item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if set(value) == {_TUPLE} and isinstance(value[_TUPLE], list):
        return tuple(value_from_json(name, item) for item in value[_TUPLE])
    if _DIGEST in value:
        what, digest = value.get("what"), value[_DIGEST]
        if len(value) != 2 or not isinstance(what, str) or not isinstance(digest, str):
            raise UsageError(f"call_kwargs: {name}: has a damaged digest; write it as it was")
        return Absent(what, digest)
    return {key: value_from_json(name, item) for key, item in value.items()}


def _digest(what: str, content: bytes, palette: list[int] | None = None) -> dict[str, str]:
    found = hashlib.sha256(what.encode())
    found.update(content)
    if palette is not None:
        found.update(bytes(palette))
    return {"what": what, _DIGEST: found.hexdigest()}
