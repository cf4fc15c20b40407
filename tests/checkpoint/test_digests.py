"""A checkpoint is the one that was saved, bit for bit, or it is refused."""

import io
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

import mezzotint as mz
from mezzotint import _tensor_digests
from mezzotint._digest_file import DigestFile
from mezzotint._tensor_digests import VERIFY_VARIABLE, digests_of, file_digests, stored_places
from mezzotint.checkpoint.verify import verify_checkpoint
from mezzotint.errors import CheckpointError, ModelError
from tests.checkpoint import packed
from tests.checkpoint.streaming.float_models import stored

OTHERS = ("vae", "text_encoder")


@pytest.fixture
def weights(saved_copy: Path) -> Path:
    return saved_copy / "unet" / packed.WEIGHTS


def flip(file: Path, tensor: str, seed: int = 0) -> None:
    """Turn one bit of a tensor."""
    place = stored_places(file)[tensor]
    at = random.Random(seed).randrange(8 * place.nbytes)
    content = bytearray(file.read_bytes())
    content[place.start + at // 8] ^= 1 << at % 8
    file.write_bytes(content)


def swap(file: Path, left: str, right: str) -> None:
    tensors = load_file(file)
    tensors[left], tensors[right] = tensors[right], tensors[left]
    save_file(tensors, file, metadata={"format": "pt"})


def without_digests(folder: Path) -> None:
    """Make of a checkpoint what an older version would have saved."""
    (folder / DigestFile.FILE).unlink()
    packed.edit_config(folder / "unet", lambda config: config.pop("sha256"))


class TestDigests:
    def test_of_memory_are_those_of_the_file(self, tmp_path: Path):
        tensors = {
            "float": torch.randn(3, 4),
            "half": torch.randn(5).half(),
            "brain": torch.randn(2, 1, 2).bfloat16(),
            "codes": torch.arange(7, dtype=torch.uint8),
            "flags": torch.tensor([True, False]),
            "scalar": torch.tensor(3),
            "complex": torch.randn(3, dtype=torch.complex64),
            "byte": torch.randn(5).to(torch.float8_e4m3fn),
            "narrow": torch.randn(5).to(torch.float8_e5m2fnuz),
            "scales": torch.ones(5).to(torch.float8_e8m0fnu),
            "none": torch.empty(0, 4),
            "large": torch.arange(3 * 2**20 + 1, dtype=torch.int32),
        }
        save_file(tensors, tmp_path / "a.safetensors")
        found = file_digests(tmp_path / "a.safetensors")
        assert found == digests_of(tensors, "memory")
        assert len(set(found.values())) == len(tensors)

    def test_are_the_same_where_the_system_gives_less_than_is_asked_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        class Sparing(io.FileIO):
            """A file that is read a few bytes at a time, and in the middle of numbers."""

            def readinto(self, buffer: Any, /) -> int | None:
                return super().readinto(memoryview(buffer)[: 4 if self.tell() % 2 else 3])

        def opened(
            path: Path, mode: str = "r", buffering: int = -1
        ) -> io.FileIO | io.BufferedReader:
            file = Sparing(path, mode)
            return file if buffering == 0 else io.BufferedReader(file)

        path = tmp_path / "a.safetensors"
        # Numbers that are NaN where they are read from the middle of one to that of the next.
        tensors = {"a": torch.full((9,), 0x017E, dtype=torch.int16).view(torch.float16)}
        save_file(tensors, path)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", opened)
            assert file_digests(path) == digests_of(tensors, "memory")

    @pytest.mark.parametrize(
        "other",
        [torch.zeros(4, 2), torch.zeros(2, 4).half(), torch.zeros(8), torch.ones(2, 4)],
        ids=["shape", "dtype", "rank", "value"],
    )
    def test_differ_with(self, other: torch.Tensor):
        before, after = (digests_of({"a": each}, "memory") for each in (torch.zeros(2, 4), other))
        assert before != after

    def test_of_a_dtype_that_nobody_stores_there_are_none(self, tmp_path: Path):
        with pytest.raises(CheckpointError, match=r"memory: a: is torch\.complex128, in which no"):
            digests_of({"a": torch.zeros(2, dtype=torch.complex128)}, "memory")
        path = tmp_path / "a.safetensors"
        header = json.dumps({"a": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + b"ab")
        assert len(file_digests(path)) == 1
        place = replace(stored_places(path)["a"], dtype="F3_E9M9")
        with pytest.raises(CheckpointError, match="is stored as F3_E9M9, which this version"):
            _tensor_digests._place_digest(place, "a")

    @pytest.mark.parametrize(
        "dtype",
        [
            *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz),
            *(torch.float8_e5m2fnuz, torch.float8_e8m0fnu, torch.complex64),
        ],
        ids=str,
    )
    def test_of_nan_in_other_dtypes_there_are_none_either(self, tmp_path: Path, dtype: torch.dtype):
        tensors = {"bad": torch.tensor([1.0, torch.nan]).to(dtype)}
        save_file(tensors, tmp_path / "a.safetensors")
        for found in (digests_of, lambda _, source: file_digests(source)):
            with pytest.raises(CheckpointError, match="bad: holds NaN or infinite"):
                found(tensors, tmp_path / "a.safetensors")

    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
    def test_of_no_number_there_are_none(self, tmp_path: Path, value: float, dtype: torch.dtype):
        tensors = {"fine": torch.zeros(3), "bad": torch.full((2,), value, dtype=dtype)}
        with pytest.raises(CheckpointError, match="memory: bad: holds NaN or infinite"):
            digests_of(tensors, "memory")
        save_file(tensors, tmp_path / "a.safetensors")
        with pytest.raises(CheckpointError, match=r"a\.safetensors: bad: holds NaN or infinite"):
            file_digests(tmp_path / "a.safetensors")

    def test_stand_in_the_denoisers_config_and_beside_it(self, saved: Path):
        config = json.loads((saved / "unet" / "config.json").read_text())["quantization_config"]
        assert config["sha256"] == file_digests(saved / "unet" / packed.WEIGHTS)
        files = DigestFile.load(saved / DigestFile.FILE).files
        assert {name.partition("/")[0] for name in files} == set(OTHERS)
        assert files == {name: file_digests(saved / name) for name in files}

    def test_are_the_same_from_disk_to_disk(self, float_folder: Path, saved: Path, tmp_path: Path):
        written = mz.quantize_checkpoint(
            float_folder,
            tmp_path / "packed",
            plan=saved,
            storage=mz.Storage(shard_bytes=40_000),
        )
        left, right = (
            json.loads((folder / "unet" / "config.json").read_text())["quantization_config"]
            for folder in (saved, written.folder)
        )
        assert left["sha256"] == right["sha256"]
        assert all(file.verified for file in verify_checkpoint(written.folder))

    def test_survive_sharding_by_diffusers(self, saved: Path, tmp_path: Path):
        unet = UNet2DConditionModel.from_pretrained(saved / "unet")
        assert unet.config["quantization_config"].sha256 is None
        unet.save_pretrained(tmp_path, max_shard_size="30KB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 1
        assert packed.same(stored(tmp_path), stored(saved / "unet"))
        UNet2DConditionModel.from_pretrained(tmp_path)
        assert all(file.verified for file in verify_checkpoint(tmp_path))
        shard = sorted(tmp_path.glob("*.safetensors"))[1]
        flip(shard, next(iter(stored_places(shard))))
        with pytest.raises(CheckpointError):
            UNet2DConditionModel.from_pretrained(tmp_path)


class TestDamage:
    @pytest.mark.parametrize("seed", range(8))
    def test_a_flipped_bit_of_the_denoiser(self, saved_copy: Path, weights: Path, seed: int):
        names = sorted(stored_places(weights))
        flip(weights, random.Random(seed).choice(names), seed)
        for opening in (
            mz.load,
            lambda folder: UNet2DConditionModel.from_pretrained(folder / "unet"),
            verify_checkpoint,
        ):
            with pytest.raises(CheckpointError):
                opening(saved_copy)

    def test_a_flipped_code_is_named(self, saved_copy: Path, weights: Path):
        flip(weights, "conv_in.weight_codes")
        with pytest.raises(CheckpointError) as caught:
            mz.load(saved_copy)
        assert str(caught.value).startswith(
            f"{weights}: 1 tensor(s) are not those that were saved: conv_in.weight_codes;"
        )

    @pytest.mark.parametrize("component", OTHERS)
    def test_a_flipped_bit_of_another_component(self, saved_copy: Path, component: str):
        (file,) = (saved_copy / component).glob("*.safetensors")
        name = next(name for name in stored_places(file) if "norm" in name)
        flip(file, name)
        for opening in (mz.load, verify_checkpoint):
            with pytest.raises(CheckpointError, match=f"{file}: .*{name}"):
                opening(saved_copy)

    def test_two_tensors_swapped(self, saved_copy: Path, weights: Path):
        key = "mid_block.attentions.0.transformer_blocks.0.attn1"
        swap(weights, f"{key}.to_q.weight_codes", f"{key}.to_k.weight_codes")
        with pytest.raises(CheckpointError, match=r"2 tensor\(s\) are not those .*to_k.*to_q"):
            mz.load(saved_copy)

    def test_a_file_that_was_removed(self, saved_copy: Path):
        DigestFile({"vae/more.safetensors": {}}).save(saved_copy / DigestFile.FILE)
        with pytest.raises(CheckpointError, match=r"vae/more\.safetensors: is missing"):
            mz.load(saved_copy)

    @pytest.mark.parametrize(
        "digests", [[], {"conv_in.bias": 5}, {"conv_in.bias": "abc"}], ids=["list", "number", "hex"]
    )
    def test_digests_that_are_none(self, saved_copy: Path, digests: object):
        packed.edit_config(saved_copy / "unet", lambda config: config.update(sha256=digests))
        with pytest.raises(CheckpointError, match=r"sha256: is no table of tensors"):
            UNet2DConditionModel.from_pretrained(saved_copy / "unet")

    @pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "x.bin"])
    def test_digests_of_files_elsewhere(self, saved_copy: Path, name: str):
        DigestFile({name: {}}).save(saved_copy / DigestFile.FILE)
        with pytest.raises(CheckpointError, match="is no safetensors file of this folder"):
            mz.load(saved_copy)


class TestNumbers:
    @pytest.mark.parametrize("component", OTHERS)
    def test_that_are_none_are_not_saved(self, result: mz.Result, tmp_path: Path, component: str):
        pipe = mz.load(result.pipeline.name_or_path)
        pipe.register_modules(unet=result.denoiser)
        next(getattr(pipe, component).parameters()).data[0] = torch.nan
        with pytest.raises(CheckpointError, match=f"{component}/.*holds NaN or infinite"):
            mz.Result(pipe, result.plan).save(tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("component", [*OTHERS, "unet"])
    def test_that_are_none_are_not_loaded(self, float_folder: Path, tmp_path: Path, component: str):
        folder = shutil.copytree(float_folder, tmp_path / "tiny")
        (file,) = (folder / component).glob("*.safetensors")
        name, tensor = next(iter(load_file(file).items()))
        packed.rewrite(file, **{name: torch.full_like(tensor, torch.inf)})
        with pytest.raises(CheckpointError, match=f"{folder / component}: .*holds NaN or infinite"):
            mz.load(folder)

    def test_that_are_none_in_an_older_checkpoint(self, saved_copy: Path, weights: Path):
        without_digests(saved_copy)
        bias = load_file(weights)["conv_norm_out.bias"]
        packed.rewrite(weights, **{"conv_norm_out.bias": torch.full_like(bias, torch.nan)})
        with pytest.raises(CheckpointError, match=r"conv_norm_out\.bias: holds NaN or infinite"):
            UNet2DConditionModel.from_pretrained(saved_copy / "unet")


class TestTrust:
    def test_an_older_checkpoint_loads(self, result: mz.Result, saved_copy: Path):
        without_digests(saved_copy)
        assert packed.same(
            dict(mz.load(saved_copy).unet.state_dict()), dict(result.denoiser.state_dict())
        )

    def test_nothing_is_compared_where_nobody_asks(self, saved_copy: Path, weights: Path):
        flip(weights, "conv_in.weight_codes")
        assert mz.load(saved_copy, verify=False)
        with pytest.raises(CheckpointError):
            mz.load(saved_copy)

    def test_nor_where_the_environment_says_so(
        self, saved_copy: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
    ):
        flip(weights, "conv_in.weight_codes")
        monkeypatch.setenv(VERIFY_VARIABLE, "0")
        assert UNet2DConditionModel.from_pretrained(saved_copy / "unet")
        assert mz.load(saved_copy)


class TestVerify:
    def test_files_are_listed(self, saved: Path):
        found = {file.name: file for file in verify_checkpoint(saved)}
        assert found.keys() == {
            str(path.relative_to(saved)) for path in saved.rglob("*.safetensors")
        }
        assert all(file.verified for file in found.values())
        unet = found[f"unet/{packed.WEIGHTS}"]
        assert unet.tensors == len(load_file(saved / unet.name))
        assert unet.nbytes == packed.tensor_bytes(saved / unet.name)

    def test_a_denoiser_by_itself(self, saved: Path):
        (file,) = verify_checkpoint(saved / "unet")
        assert file.verified

    def test_an_older_checkpoint_is_said_to_be_unknown(self, saved_copy: Path):
        without_digests(saved_copy)
        assert not any(file.verified for file in verify_checkpoint(saved_copy))

    @pytest.mark.parametrize("place", ["nowhere", "."])
    def test_no_model(self, tmp_path: Path, place: str):
        with pytest.raises(ModelError, match="is no folder of a pipeline or a model"):
            verify_checkpoint(tmp_path / place)
