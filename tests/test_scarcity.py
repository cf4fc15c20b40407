"""Errors that are the machine's, by whatever name a library gives them."""

import errno
import fcntl
import subprocess
import sys
from pathlib import Path
from types import FunctionType

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


def test_a_process_that_cannot_be_begun(monkeypatch: pytest.MonkeyPatch):
    """As of a limit on the number of processes: the real one would be in the way of other tests."""

    def limited(*arguments: object) -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    # The real one is written in C: its errors arise in its caller's module.
    inside = FunctionType(limited.__code__, {**globals(), "__name__": "subprocess"})
    monkeypatch.setattr(subprocess, "_fork_exec", inside)
    with pytest.raises(BlockingIOError) as caught:
        subprocess.run([sys.executable, "--version"], check=False, close_fds=True)
    assert str(scarcity(caught.value)).startswith("out of memory; close other programs")


def test_a_thread_that_cannot_be_begun():
    assert scarcity(RuntimeError("Resource temporarily unavailable")) is not None


def test_a_file_that_another_holds_is_no_scarcity(tmp_path: Path):
    with (tmp_path / "held").open("w") as held, (tmp_path / "held").open("w") as second:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError) as caught:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert caught.value.errno == errno.EAGAIN
    assert scarcity(caught.value) is None


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
