"""Sources that cannot be packed: the error names file and tensor, and nothing is left behind."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import mezzotint as mz
from mezzotint.checkpoint.streaming.conversions import Conversion, Shard
from mezzotint.checkpoint.streaming.source_folder import Source
from mezzotint.checkpoint.streaming.stored_tensors import StoredTensor
from mezzotint.checkpoint.streaming.writing import check_room
from mezzotint.errors import CheckpointError, FormatError, MezzotintError, ModelError, UsageError
from mezzotint.formats import TensorSpec
from tests.checkpoint import packed
from tests.checkpoint.streaming.float_models import WEIGHTS, python

Refusal = Callable[[type[MezzotintError]], str]


@pytest.fixture
def refusal(damaged: Path, target: Path) -> Refusal:
    """Try to pack; returns the message."""

    def attempt(kind: type[MezzotintError] = CheckpointError) -> str:
        with pytest.raises(kind) as caught:
            mz.quantize_checkpoint(damaged, target, storage=mz.Storage(shard_bytes=40_000))
        assert list(target.parent.iterdir()) == []
        return str(caught.value)

    return attempt


@pytest.fixture
def weights(damaged: Path) -> Path:
    return damaged / "unet" / WEIGHTS


def test_a_truncated_file(refusal: Refusal, weights: Path):
    os.truncate(weights, weights.stat().st_size - 1)
    assert refusal().startswith(f"{weights}: is truncated")


def test_a_file_that_is_no_safetensors(refusal: Refusal, weights: Path):
    weights.write_bytes(b"\xff" * 100)
    assert refusal().startswith(f"{weights}: is truncated or damaged")


def test_no_file(refusal: Refusal, weights: Path):
    weights.rename(weights.with_name("model.bin"))
    assert refusal().startswith(f"{weights.parent}: holds neither {WEIGHTS} nor")


def test_a_missing_tensor(refusal: Refusal, weights: Path):
    packed.rewrite(weights, **{"conv_out.weight": None})
    assert refusal().startswith(f"{weights}: lacks 1 tensor(s): conv_out.weight")


def test_a_tensor_of_another_shape(refusal: Refusal, weights: Path):
    packed.rewrite(weights, **{"conv_out.bias": torch.zeros(5)})
    assert refusal().startswith(f"{weights}: conv_out.bias: is of shape (5,), but the model")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_weight_that_is_not_finite(refusal: Refusal, weights: Path, value: float):
    weight = load_file(weights)["conv_out.weight"]
    weight[-1, -1, -1, -1] = value
    packed.rewrite(weights, **{"conv_out.weight": weight})
    message = refusal(MezzotintError)
    start = f"{weights}: conv_out.weight: layer conv_out: the weight holds NaN or infinite"
    assert message.startswith(start)


def test_a_norm_that_is_not_a_number(refusal: Refusal, weights: Path):
    bias = load_file(weights)["conv_norm_out.bias"].fill_(torch.nan)
    packed.rewrite(weights, **{"conv_norm_out.bias": bias})
    assert refusal(MezzotintError).startswith(f"{weights}: conv_norm_out.bias: holds NaN")


def test_a_value_too_large_for_the_dtype(damaged: Path, weights: Path, target: Path):
    bias = load_file(weights)["conv_norm_out.bias"].fill_(1e6)
    packed.rewrite(weights, **{"conv_norm_out.bias": bias})
    with pytest.raises(FormatError, match=r"conv_norm_out\.bias: .* too large for .*float16"):
        mz.quantize_checkpoint(damaged, target, storage=mz.Storage(dtype=torch.float16))
    mz.quantize_checkpoint(damaged, target, storage=mz.Storage(dtype=torch.bfloat16))


def test_an_integer_weight(refusal: Refusal, weights: Path):
    weight = load_file(weights)["conv_out.weight"].to(torch.int8)
    packed.rewrite(weights, **{"conv_out.weight": weight})
    assert refusal().startswith(f"{weights}: conv_out.weight: is torch.int8, but the model has")


def test_an_eight_bit_float(refusal: Refusal, weights: Path):
    weight = load_file(weights)["conv_out.weight"].to(torch.float8_e4m3fn)
    packed.rewrite(weights, **{"conv_out.weight": weight})
    assert refusal().startswith(f"{weights}: conv_out.weight: is stored as F8_E4M3; only")


def test_a_quantized_source(damaged: Path, target: Path, tmp_path: Path):
    mz.quantize_checkpoint(damaged, target)
    with pytest.raises(UsageError, match=r"unet/config.json: the model is quantized already"):
        mz.quantize_checkpoint(target, tmp_path / "again")


def test_a_class_that_is_not_there(refusal: Refusal, damaged: Path):
    path = damaged / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": "Nothing"}))
    assert refusal(ModelError).startswith(f"{path}: _class_name: is 'Nothing'")


def test_a_config_that_makes_no_model(refusal: Refusal, damaged: Path):
    path = damaged / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layers_per_block": "many"}))
    assert refusal(ModelError).startswith(f"{path}: UNet2DConditionModel cannot be made of it")


def test_a_pipeline_without_denoiser(refusal: Refusal, damaged: Path):
    path = damaged / "model_index.json"
    index = json.loads(path.read_text())
    del index["unet"]
    path.write_text(json.dumps(index))
    assert refusal(ModelError).startswith(f"{path}: lists no denoiser")


def test_an_unreachable_hub(target: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="owner/name: cannot be downloaded"):
        mz.quantize_checkpoint("owner/name", target)


class TestShards:
    @pytest.fixture
    def shards(self, damaged: Path) -> list[Path]:
        folder = damaged / "unet"
        tensors = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        files = [folder / "a.safetensors", folder / "b.safetensors"]
        names = sorted(tensors)
        halves = names[: len(names) // 2], names[len(names) // 2 :]
        for file, half in zip(files, halves, strict=True):
            save_file({name: tensors[name] for name in half}, file, metadata={"format": "pt"})
        index = {n: f.name for f, half in zip(files, halves, strict=True) for n in half}
        path = folder / f"{WEIGHTS}.index.json"
        path.write_text(json.dumps({"metadata": {}, "weight_map": index}))
        return files

    def test_that_are_whole_are_read(self, damaged: Path, shards: list[Path], target: Path):
        assert mz.quantize_checkpoint(damaged, target).denoiser_bytes > 0

    def test_one_that_is_missing(self, refusal: Refusal, shards: list[Path]):
        shards[1].unlink()
        assert refusal().startswith(f"{shards[1]}: is missing")

    def test_one_that_is_truncated(self, refusal: Refusal, shards: list[Path]):
        os.truncate(shards[1], shards[1].stat().st_size // 2)
        assert refusal().startswith(f"{shards[1]}: is truncated")

    def test_a_tensor_in_two_of_them(self, refusal: Refusal, shards: list[Path]):
        packed.rewrite(shards[1], **{next(iter(load_file(shards[0]))): torch.zeros(1)})
        assert "stands in a.safetensors too" in refusal()

    def test_an_index_without_map(self, refusal: Refusal, shards: list[Path]):
        path = shards[0].with_name(f"{WEIGHTS}.index.json")
        path.write_text("{}")
        assert refusal().startswith(f"{path}: weight_map: is missing")


def test_tensors_without_a_place_are_told(damaged: Path, weights: Path, target: Path):
    packed.rewrite(weights, **{"stray.weight": torch.zeros(2)})
    assert mz.quantize_checkpoint(damaged, target).left_out == ("stray.weight",)


FULL_DISK = """
import resource, sys
import mezzotint as mz
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try:
    mz.quantize_checkpoint(*sys.argv[1:], storage=mz.Storage(shard_bytes=40_000))
except mz.MezzotintError as error:
    print(error)
"""


def test_a_disk_that_takes_no_more(pipeline: Path, target: Path):
    """Small shards still fit; the large files of other components do not."""
    process = python(FULL_DISK, pipeline, target)
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith(f"{target}: cannot be written (")
    (kept,) = target.parent.iterdir()
    assert re.fullmatch(r"\.packed\.partial-[0-9a-f]{16}", kept.name)
    assert f"finished shards are kept in {kept}" in process.stdout
    mz.quantize_checkpoint(pipeline, target, storage=mz.Storage(shard_bytes=40_000))
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_disk_too_small_is_seen_beforehand(tmp_path: Path):
    spec = TensorSpec((2**60,), torch.uint8)
    conversion = Conversion(StoredTensor(tmp_path / "none", "weight", spec), {"weight": spec})
    with pytest.raises(OSError, match="it takes 1,152,921,504,606,846,976 bytes more"):
        check_room(tmp_path, Source(tmp_path, "none"), [Shard("all", (conversion,))])
