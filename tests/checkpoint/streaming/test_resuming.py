"""Killed in the middle, and begun again."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import mezzotint as mz
from mezzotint._locks import only_here
from mezzotint.checkpoint.streaming import packed_checkpoint
from mezzotint.errors import CheckpointError, UsageError
from tests.checkpoint import packed
from tests.checkpoint.streaming.float_models import python, stored

STORAGE = mz.Storage(shard_bytes=40_000)

KILLED = """
import os, signal, sys
import mezzotint as mz

renamed = 0

def die_at_the_fourth_file(event, arguments):
    global renamed
    if event == "os.rename" and str(arguments[1]).endswith(".safetensors"):
        renamed += 1
        if renamed == 4:
            os.kill(os.getpid(), int(sys.argv[3]))

sys.addaudithook(die_at_the_fourth_file)
mz.quantize_checkpoint(sys.argv[1], sys.argv[2], storage=mz.Storage(shard_bytes=40_000))
"""

KILLED_AT_LAST = """
import os, signal, sys
import mezzotint as mz
from mezzotint._locks import only_here
from mezzotint.checkpoint.streaming import packed_checkpoint

packed_checkpoint.write_card = lambda *rest: os.kill(os.getpid(), signal.SIGKILL)
mz.quantize_checkpoint(sys.argv[1], sys.argv[2], storage=mz.Storage(shard_bytes=40_000))
"""


@pytest.fixture
def kept(pipeline: Path, target: Path) -> Path:
    """Remains of a kill: three shards, and a fourth without its name."""
    process = python(KILLED, pipeline, target, int(signal.SIGKILL))
    assert process.returncode == -signal.SIGKILL, process.stderr
    (folder,) = target.parent.glob(".*.partial-*")
    return folder


def interrupted(pipeline: Path, target: Path, *, shards_before: int) -> Path:
    """Remains of an interruption in this process, when another shard than those is begun."""
    write, written = packed_checkpoint.write_tensors, []

    def limited(path: Path, tensors: dict[str, Tensor]) -> None:
        if len(written) == shards_before:
            raise KeyboardInterrupt
        write(path, tensors)
        written.append(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_checkpoint, "write_tensors", limited)
        with pytest.raises(KeyboardInterrupt):
            mz.quantize_checkpoint(pipeline, target, storage=STORAGE)
    (folder,) = target.parent.glob(".*.partial-*")
    return folder


def shards(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.glob("unet/[!.]*.safetensors")}


def test_a_kill_leaves_no_target(kept: Path, target: Path):
    assert not target.exists()
    assert kept.name.startswith(".packed.partial-")
    assert len(shards(kept)) == 3
    assert {path.name[:9] for path in kept.glob("unet/.*")} == {".diffusio", ".shards.j"}


def test_a_kill_leaves_the_former_target(pipeline: Path, target: Path):
    mz.quantize_checkpoint(pipeline, target, weight_bits=2)
    before = stored(target / "unet")
    python(KILLED, pipeline, target, int(signal.SIGKILL))
    assert packed.same(stored(target / "unet"), before)


def test_the_same_call_goes_on(kept: Path, pipeline: Path, target: Path, tmp_path: Path):
    finished = shards(kept)
    mz.quantize_checkpoint(pipeline, target, storage=STORAGE)
    assert finished.items() < shards(target).items()
    mz.quantize_checkpoint(pipeline, tmp_path / "straight", storage=STORAGE)
    assert packed.same(stored(target / "unet"), stored(tmp_path / "straight" / "unet"))
    assert list(target.glob("unet/.*")) == []
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_shard_that_the_disk_lost_is_written_again(kept: Path, pipeline: Path, target: Path):
    first, second, _ = sorted(kept.glob("unet/[!.]*.safetensors"))
    os.truncate(first, 100)
    untouched = second.stat().st_ino
    mz.quantize_checkpoint(pipeline, target, storage=STORAGE)
    assert (target / "unet" / second.name).stat().st_ino == untouched
    assert mz.load(target)


def test_a_shard_whose_bits_have_changed_is_written_again(
    pipeline: Path, target: Path, tmp_path: Path
):
    kept = interrupted(pipeline, target, shards_before=2)
    first, second = sorted(kept.glob("unet/[!.]*.safetensors"))
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(content)
    untouched = second.stat().st_ino
    mz.quantize_checkpoint(pipeline, target, storage=STORAGE)
    assert (target / "unet" / second.name).stat().st_ino == untouched
    mz.quantize_checkpoint(pipeline, tmp_path / "straight", storage=STORAGE)
    assert packed.same(stored(target / "unet"), stored(tmp_path / "straight" / "unet"))


def test_what_was_finished_when_only_the_card_was_lacking_is_kept(
    pipeline: Path, target: Path, monkeypatch: pytest.MonkeyPatch
):
    def never(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(packed_checkpoint, "write_card", never)
        with pytest.raises(KeyboardInterrupt):
            mz.quantize_checkpoint(pipeline, target, storage=STORAGE)
    (kept,) = target.parent.glob(".*.partial-*")
    finished = shards(kept)
    mz.quantize_checkpoint(pipeline, target, storage=STORAGE)
    assert shards(target) == finished


def test_bad_numbers_elsewhere_are_told_before_anything_is_packed(damaged: Path, target: Path):
    """Nor do finished shards go because of them."""
    kept = interrupted(damaged, target, shards_before=1)
    finished = shards(kept)
    assert finished
    file = damaged / "vae" / packed.WEIGHTS
    whole = load_file(file)
    name = next(iter(whole))
    packed.rewrite(file, **{name: whole[name] * torch.nan})
    with pytest.raises(CheckpointError, match=f"vae.*{name}: holds NaN"):
        mz.quantize_checkpoint(damaged, target, storage=STORAGE)
    assert shards(kept) == finished


@pytest.mark.parametrize("change", ["bits", "source"])
def test_another_job_begins_afresh(kept: Path, pipeline: Path, target: Path, change: str, request):
    if change == "bits":
        finished = shards(kept)
        mz.quantize_checkpoint(pipeline, target, weight_bits=7, storage=STORAGE)
    else:
        damaged = request.getfixturevalue("damaged")
        finished = shards(kept)
        mz.quantize_checkpoint(damaged, target, storage=STORAGE)
    assert not finished.items() & shards(target).items()
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_other_components_are_those_of_the_last_run(damaged: Path, target: Path):
    (damaged / "vae" / "old.txt").write_text("old")
    process = python(KILLED_AT_LAST, damaged, target)
    (kept,) = target.parent.glob(".*.partial-*")
    assert (kept / "vae" / "old.txt").exists(), process.stderr
    (damaged / "vae" / "old.txt").unlink()
    (damaged / "NOTICE").unlink()
    mz.quantize_checkpoint(damaged, target, storage=STORAGE)
    assert not (target / "vae" / "old.txt").exists()
    assert not (target / "NOTICE").exists()


def test_the_same_job_is_not_done_twice_at_a_time(kept: Path, pipeline: Path, target: Path):
    finished = shards(kept)
    with only_here(target), ThreadPoolExecutor() as other:
        second = other.submit(mz.quantize_checkpoint, pipeline, target, storage=STORAGE)
        with pytest.raises(UsageError, match="another process"):
            second.result()
    assert shards(kept) == finished


def test_what_another_job_is_writing_stays(kept: Path, pipeline: Path, target: Path):
    finished = shards(kept)
    with only_here(target), ThreadPoolExecutor() as other:
        second = other.submit(mz.quantize_checkpoint, pipeline, target, weight_bits=7)
        with pytest.raises(UsageError, match="another process"):
            second.result()
    assert shards(kept) == finished
    mz.quantize_checkpoint(pipeline, target, storage=STORAGE)
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_shards_that_vanish_meanwhile_are_missed(
    pipeline: Path, target: Path, monkeypatch: pytest.MonkeyPatch
):
    written = packed_checkpoint.write_tensors

    def losing(path: Path, tensors: dict[str, Tensor]) -> None:
        for former in path.parent.glob("*.safetensors"):
            former.unlink()
        written(path, tensors)

    monkeypatch.setattr(packed_checkpoint, "write_tensors", losing)
    with pytest.raises(CheckpointError, match="finished shards are gone"):
        mz.quantize_checkpoint(pipeline, target, storage=STORAGE)
    assert list(target.parent.iterdir()) == []


def test_an_interruption_says_how_to_go_on(pipeline: Path, target: Path):
    process = python(KILLED, pipeline, target, int(signal.SIGINT))
    (kept,) = target.parent.glob(".*.partial-*")
    assert "KeyboardInterrupt" in process.stderr
    assert f"finished shards are kept in {kept}" in process.stderr
    assert "repeat the command to go on" in process.stderr
