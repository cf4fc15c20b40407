"""SHA-256 of every tensor of a model: made while it is written, compared when it is read.

A digest is of the tensor's dtype, its shape and its bytes, so that neither a flipped bit nor a
swap of two tensors passes for the model. There is none of NaN or infinity: no model is made of
those, and a tensor that holds any is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mezzotint._files import header_length
from mezzotint._tensor_files import DTYPES
from mezzotint.errors import CheckpointError, first_line

VERIFY_VARIABLE = "MEZZOTINT_VERIFY"
"""Environment variable: 0 has no digest compared, and no value looked at, when models load."""

_CHUNK = 2**22
"""Bytes of a tensor in memory at a time, for each thread."""

_THREADS = 8

_NAMES = {dtype: name for name, dtype in DTYPES.items()}

_FINITE = ("F4", "F6_E2M3", "F6_E3M2")
"""Names of dtypes of less than a byte, without NaN and infinity; torch cannot compute with them."""

_verifying: ContextVar[bool] = ContextVar("verifying", default=True)

ItemT = TypeVar("ItemT")


def verifying() -> bool:
    """True unless whoever loads a model, or the environment, asks for no comparison."""
    return _verifying.get() and os.environ.get(VERIFY_VARIABLE) != "0"


@contextmanager
def verification(wanted: bool) -> Iterator[None]:
    """Have models that are loaded within verified, or not."""
    token = _verifying.set(wanted)
    try:
        yield
    finally:
        _verifying.reset(token)


def digests_of(tensors: Mapping[str, Tensor], source: object) -> dict[str, str]:
    """Name → SHA-256 in hexadecimal digits of tensors in memory, in their order.

    Args:
        tensors: on any device but meta.
        source: holder of the tensors, for errors.

    Raises:
        CheckpointError: a tensor holds NaN or infinity; it is named.
    """
    return _in_threads(lambda name: _tensor_digest(tensors[name], f"{source}: {name}"), tensors)


def file_digests(file: Path) -> dict[str, str]:
    """Name → SHA-256 in hexadecimal digits of the tensors in a safetensors file, sorted by name.

    Raises:
        CheckpointError: the file is missing, truncated or damaged, or a tensor holds NaN or
            infinity; it is named.
    """
    places = stored_places(file)
    return _in_threads(lambda name: _place_digest(places[name], f"{file}: {name}"), places)


def check_digests(found: Mapping[str, str], expected: Mapping[str, str], source: object) -> None:
    """Compare the tensors that are stored with those that were saved.

    Raises:
        CheckpointError: one is missing, was added, or is another; it is named.
    """
    unlike = sorted(name for name in expected if found.get(name) != expected[name])
    unlike += sorted(found.keys() - expected.keys())
    if unlike:
        shown = ", ".join(unlike[:3]) + (" …" if len(unlike) > 3 else "")
        raise CheckpointError(
            f"{source}: {len(unlike)} tensor(s) are not those that were saved: {shown}; copy or "
            "download the checkpoint again"
        )


def check_finite(module: nn.Module, source: object) -> None:
    """Refuse a model that holds NaN or infinity in any of its floating tensors.

    Raises:
        CheckpointError: naming the tensor.
    """
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor):
            _refuse_unless_finite(tensor, f"{source}: {name}")


@dataclass(frozen=True)
class StoredPlace:
    """Place of a tensor in a safetensors file.

    Attributes:
        file: the file.
        dtype: its name in the header, such as F32.
        shape: of the tensor.
        start: first byte in the file.
        nbytes: bytes from there on.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


def stored_places(file: Path) -> dict[str, StoredPlace]:
    """Name → place of every tensor of a safetensors file, sorted by name.

    Raises:
        CheckpointError: the file is missing, truncated or damaged.
    """
    try:
        with safe_open(file, framework="pt"):  # compares the header with itself and the file
            pass
        with file.open("rb") as opened:
            length = header_length(opened)
            header = json.loads(opened.read(length))
    except (SafetensorError, OSError, ValueError) as cause:
        raise CheckpointError(
            f"{file}: is missing, truncated or damaged ({first_line(cause)}); copy or download it "
            "again"
        ) from cause
    header.pop("__metadata__", None)
    places = {}
    for name, entry in sorted(header.items()):
        begin, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        places[name] = StoredPlace(file, entry["dtype"], shape, 8 + length + begin, end - begin)
    return places


def _in_threads(digest: Callable[[ItemT], str], items: Iterable[ItemT]) -> dict[ItemT, str]:
    """Digests of items; both reading and hashing leave Python to other threads."""
    names = list(items)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(max(1, min(_THREADS, cores or 1))) as pool:
        return dict(zip(names, pool.map(digest, names), strict=True))


def _begun(dtype: str, shape: Sequence[int]) -> hashlib._Hash:
    return hashlib.sha256(f"{dtype} {'x'.join(map(str, shape))}\n".encode())


def _tensor_digest(tensor: Tensor, source: str) -> str:
    value = tensor.detach()
    _refuse_unless_finite(value, source)
    if value.dtype not in _NAMES:
        raise CheckpointError(
            f"{source}: is {value.dtype}, in which no model is stored; cast it to another dtype"
        )
    digest = _begun(_NAMES[value.dtype], value.shape)
    if value.numel():
        digest.update(value.contiguous().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _place_digest(place: StoredPlace, source: str) -> str:
    dtype = DTYPES.get(place.dtype)
    if dtype is None and place.dtype not in _FINITE:
        raise CheckpointError(
            f"{source}: is stored as {place.dtype}, which this version cannot read; store the "
            "model in another dtype, or upgrade mezzotint"
        )
    digest = _begun(place.dtype, place.shape)
    left = place.nbytes
    # Read, not mapped: pages of a mapping count as the process's memory. A buffered reader fills
    # each chunk, however little the system gives at a time, so that no number lies across two.
    with place.file.open("rb") as file:
        file.seek(place.start)
        chunk = bytearray(min(_CHUNK, left))
        while left:
            size = file.readinto(memoryview(chunk)[: min(_CHUNK, left)])
            if not size:
                raise CheckpointError(f"{source}: is truncated; copy or download it again")
            part = memoryview(chunk)[:size]
            digest.update(part)
            if dtype is not None:
                _refuse_unless_finite(torch.frombuffer(part, dtype=dtype), source)
            left -= size
    return digest.hexdigest()


def _refuse_unless_finite(tensor: Tensor, source: str) -> None:
    if tensor.is_meta or not tensor.numel():
        return
    values = tensor.detach()
    if values.is_complex():
        values = torch.view_as_real(values)
    if not values.is_floating_point():
        return
    # Floats of one byte have no extremes in torch.
    values = values.float() if values.itemsize == 1 else torch.stack(values.aminmax())
    if not bool(values.isfinite().all()):
        raise CheckpointError(
            f"{source}: holds NaN or infinite values; start from a model that is whole"
        )
