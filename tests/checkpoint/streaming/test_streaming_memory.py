"""Peak memory, of a fresh process that warmed up on a small model."""

from pathlib import Path

import pytest

from mezzotint.evaluation import stored_bytes
from tests.checkpoint.streaming import float_models

MIB = 2**20
SHARD = 32 * MIB
HEADS = 16
LARGEST = 4 * (64 * HEADS) * (4 * 64 * HEADS)
"""Bytes of the largest tensor: float32, the feed-forward of a block."""
CONSTANT = 96 * MIB

MEASURE = """
import resource, sys
from diffusers import PixArtTransformer2DModel
import mezzotint as mz

def peak():
    # A process inherits the highest ru_maxrss of the one that started it; Linux knows better.
    try:
        lines = open("/proc/self/status").read().splitlines()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

small, big = sys.argv[1:3]
{work}
work(small)
try:
    open("/proc/self/clear_refs", "w").write("5")  # forget what imports took for a moment
except OSError:
    pass
baseline = peak()
work(big)
print(peak() - baseline)
"""

QUANTIZE = """
def work(folder):
    mz.quantize_checkpoint(
        folder, folder + "-packed", weight_bits=4, exclude=["re:transformer_blocks[.][2-9].*"],
        storage=mz.Storage(shard_bytes=32 * 2**20),
    )
"""

LOAD = """
def work(folder):
    global model
    model = PixArtTransformer2DModel.from_pretrained(folder + "-packed")
    for tensor in model.state_dict().values():
        tensor.max()  # files are mapped: until it is read, a tensor takes no memory
"""


def peak_bytes(work: str, *folders: Path) -> int:
    process = float_models.python(MEASURE.replace("{work}", work), *folders)
    assert process.returncode == 0, process.stderr
    return int(process.stdout)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small model, and one of 400 MB."""
    folder = tmp_path_factory.mktemp("memory")
    small = float_models.save_pixart(folder / "small", layers=3, heads=1)
    return small, float_models.save_pixart(folder / "big", layers=6, heads=HEADS)


def test_neither_packing_nor_loading_holds_the_model(folders: tuple[Path, Path]):
    _, big = folders
    assert stored_bytes(big) > 400e6
    packing = peak_bytes(QUANTIZE, *folders)
    print(packing / MIB)
    assert packing < LARGEST + SHARD + CONSTANT
    packed = stored_bytes(big.with_name("big-packed"))
    assert packed < stored_bytes(big) - 110e6
    load = peak_bytes(LOAD, *folders)
    print(load / MIB, packed / MIB)
    assert load < packed + CONSTANT
