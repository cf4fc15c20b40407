"""Memory that is given back."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mezzotint.runtime.pages import give_back

MIB = 2**20


def resident_file_bytes() -> int:
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(fields["RssFile"].split()[0])


@pytest.fixture
def mapped(tmp_path: Path) -> Tensor:
    save_file({"codes": torch.arange(16 * MIB).to(torch.uint8)}, tmp_path / "a.safetensors")
    return load_file(tmp_path / "a.safetensors")["codes"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells and takes the advice")
def test_pages_of_a_file_are_no_longer_resident(mapped: Tensor):
    expected = mapped.sum()
    before = resident_file_bytes()
    give_back(mapped)
    assert resident_file_bytes() < before - 12 * MIB
    assert torch.equal(mapped.sum(), expected)


def test_what_was_written_into_a_mapping_stays(mapped: Tensor):
    mapped[MIB : 2 * MIB] = 7
    expected = mapped.clone()
    give_back(mapped)
    assert torch.equal(mapped, expected)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(MIB),
        torch.zeros(0),
        torch.arange(4 * MIB)[::2],
        torch.empty(MIB, device="meta"),
    ],
    ids=["own", "empty", "strided", "meta"],
)
def test_other_tensors_are_left_alone(tensor: Tensor):
    expected = tensor.clone()
    give_back(tensor)
    assert tensor.is_meta or torch.equal(tensor, expected)


FREED = """
from pathlib import Path
import torch
from mezzotint.runtime.pages import make_room

def resident() -> int:
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) // 1024

# glibc maps blocks apart until it has seen one as large freed.
large = torch.empty(30 * 2**20, dtype=torch.uint8)
del large
blocks = [torch.zeros(2**20, dtype=torch.uint8) for _ in range(100)]
last = blocks.pop()
blocks.clear()
for size in (2**20, 2**26):
    before = resident()
    make_room(size)
    print(before - resident())
"""
"""MiB of a hundred free ones that go back before a small block, and before a large one."""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="only glibc gives back on demand",
)
def test_freed_memory_goes_back_before_large_blocks_alone():
    told = subprocess.run(
        [sys.executable, "-c", FREED], check=True, capture_output=True, text=True
    ).stdout
    small, large = map(int, told.split())
    assert abs(small) < 5
    assert large > 80
