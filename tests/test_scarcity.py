"""Errors that are the machine's, by whatever name a library gives them."""

import errno

import pytest
import torch
from safetensors import SafetensorError

from mezzotint._scarcity import scarcity


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


MEMORY = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    ImportError("libx.so: failed to map segment from shared object"),
    RuntimeError("can't start new thread"),
    RuntimeError("std::bad_alloc"),
    caused(ValueError("fails on its own call"), MemoryError()),
]

DISK = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    OSError(errno.EFBIG, "File too large"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    caused(RuntimeError("PytorchStreamWriter failed"), OSError(errno.ENOSPC, "No space")),
]


@pytest.mark.parametrize("error", MEMORY, ids=repr)
def test_memory(error: Exception):
    assert str(scarcity(error)).startswith("out of memory; close other programs")


@pytest.mark.parametrize("error", DISK, ids=repr)
def test_disk(error: Exception):
    assert str(scarcity(error)).startswith("the disk is full; make room")


@pytest.mark.parametrize(
    "error", [ValueError("no"), OSError(errno.ENOENT, "No such file"), KeyError("memory")], ids=repr
)
def test_anything_else(error: Exception):
    assert scarcity(error) is None


def test_errors_that_come_from_each_other():
    left, right = ValueError("left"), ValueError("right")
    left.__cause__, right.__cause__ = right, left
    assert scarcity(left) is None
