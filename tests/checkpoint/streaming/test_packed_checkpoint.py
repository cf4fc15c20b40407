"""Packing from disk to disk gives what packing in memory gives."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file

import mezzotint as mz
from mezzotint.checkpoint import read_plan
from mezzotint.errors import CheckpointError, ModelError, PlanError, UsageError
from mezzotint.models import SourceOptions, loading
from mezzotint.runtime import module_bytes, packed_layers
from tests.checkpoint import packed
from tests.checkpoint.streaming.float_models import WEIGHTS, stored
from tests.models import tiny

UNIFORM = {"weight_bits": 4, "act_bits": 8, "exclude": ("conv_in", "*.conv_shortcut")}

#: Needs no calibration.
CHOICES = (
    mz.Choice("int3/channel"),
    mz.Choice("uint4/group32", "int8/token"),
    mz.Choice("int8/tensor"),
    mz.Choice("int1/channel", "uint8/token"),
    mz.Choice(),
)


def config(folder: Path) -> dict[str, object]:
    value = json.loads((folder / "config.json").read_text())
    return {name: each for name, each in value.items() if name != "_name_or_path"}


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """A U-Net of float16 tensors, in five files."""
    model = tiny.tiny_unet().half()
    size = module_bytes(model)
    model.save_pretrained(tmp_path / "half", max_shard_size=size // 4)
    assert len(list((tmp_path / "half").glob("*.safetensors"))) >= 4
    return tmp_path / "half"


def test_it_is_what_result_save_writes(pipeline: Path, target: Path, tmp_path: Path):
    written = mz.quantize_checkpoint(pipeline, target, **UNIFORM)
    pipe = mz.load(pipeline)
    plan = mz.uniform_plan(pipe.unet, **UNIFORM, model="tiny")
    expected = mz.apply(pipe, plan).save(tmp_path / "expected" / target.name)
    assert written.plan == plan
    assert packed.same(stored(target / "unet"), stored(expected / "unet"))
    assert config(target / "unet") == config(expected / "unet")
    assert (target / "README.md").read_text() == (expected / "README.md").read_text()
    names = {path.name for path in expected.iterdir()}
    assert {path.name for path in target.iterdir()} == names
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_it_is_what_quantize_denoiser_makes(pipeline: Path, target: Path):
    unet = mz.quantize_denoiser(mz.load(pipeline).unet, **UNIFORM)
    written = mz.quantize_checkpoint(pipeline, target, **UNIFORM)
    assert packed.same(stored(target / "unet"), unet.state_dict())
    assert written.denoiser_bytes == module_bytes(unet)


def test_it_loads(pipeline: Path, target: Path):
    mz.quantize_checkpoint(pipeline, target, **UNIFORM)
    loaded, unet = mz.load(target), mz.quantize_denoiser(mz.load(pipeline).unet, **UNIFORM)
    assert torch.equal(packed.run(loaded.unet), packed.run(unet))
    assert len(mz.generate(loaded, mz.Sampling(prompts=("owl",)))) == 1


def test_other_components_are_copied_byte_for_byte(pipeline: Path, target: Path):
    mz.quantize_checkpoint(pipeline, target, weight_bits=8)
    files = [path.relative_to(pipeline) for path in pipeline.rglob("*") if path.is_file()]
    copied = [path for path in files if path.parts[0] != "unet"]
    assert len(copied) > 8
    for path in copied:
        assert (target / path).read_bytes() == (pipeline / path).read_bytes()


def test_links_become_files(damaged: Path, target: Path):
    """Links as in the cache of the Hub's client."""
    weights = damaged / "vae" / WEIGHTS
    weights.rename(damaged / "blob")
    weights.symlink_to(damaged / "blob")
    mz.quantize_checkpoint(damaged, target)
    assert not (target / "vae" / WEIGHTS).is_symlink()


def test_a_mixture_of_formats(pipeline: Path, target: Path):
    model = mz.load(pipeline).unet
    plan = packed.plan_of(model, *CHOICES)
    mz.quantize_checkpoint(pipeline, target, plan=plan)
    assert packed.same(stored(target / "unet"), packed.packed_after(plan, model).state_dict())


def test_a_plan_from_a_file(pipeline: Path, target: Path, tmp_path: Path):
    plan = packed.plan_of(mz.load(pipeline).unet, *CHOICES)
    plan.save(tmp_path / "plan.json")
    assert mz.quantize_checkpoint(pipeline, target, plan=tmp_path / "plan.json").plan == plan
    assert read_plan(target) == plan


def test_a_single_model(half: Path, target: Path):
    mz.quantize_checkpoint(half, target, weight_bits=3)
    model = mz.quantize_denoiser(UNet2DConditionModel.from_pretrained(half), weight_bits=3)
    loaded = UNet2DConditionModel.from_pretrained(target)
    assert torch.equal(packed.run(loaded), packed.run(model))


class TestDtype:
    def test_is_kept_as_it_was(self, half: Path, target: Path):
        mz.quantize_checkpoint(half, target, exclude=("conv_in",))
        tensors = stored(target)
        assert tensors["conv_norm_out.weight"].dtype == torch.float16
        assert tensors["conv_in.weight"].dtype == torch.float16
        assert tensors["conv_out.bias"].dtype == torch.float16

    def test_is_changed_where_asked(self, half: Path, target: Path):
        mz.quantize_checkpoint(half, target, storage=mz.Storage(dtype=torch.float32))
        model = UNet2DConditionModel.from_pretrained(half)
        assert packed.same(stored(target), mz.quantize_denoiser(model).state_dict())

    def test_spares_what_the_class_keeps_in_float32(self, half: Path, target: Path, monkeypatch):
        monkeypatch.setattr(UNet2DConditionModel, "_keep_in_fp32_modules", ["time_embedding"])
        mz.quantize_checkpoint(half, target, storage=mz.Storage(dtype=torch.bfloat16))
        tensors = stored(target)
        assert tensors["time_embedding.linear_1.bias"].dtype == torch.float32
        assert tensors["conv_out.bias"].dtype == torch.bfloat16

    def test_must_be_floating(self):
        with pytest.raises(UsageError, match="expected a floating one"):
            mz.Storage(dtype=torch.int8)


class TestShards:
    def test_hold_the_same_tensors(self, pipeline: Path, target: Path, tmp_path: Path):
        mz.quantize_checkpoint(pipeline, target, storage=mz.Storage(shard_bytes=40_000))
        whole = tmp_path / "whole"
        mz.quantize_checkpoint(pipeline, whole)
        files = list((target / "unet").glob("*.safetensors"))
        assert len(files) > 4
        assert packed.same(stored(target / "unet"), stored(whole / "unet"))
        assert packed.integers(mz.load(target).unet).keys() == (
            packed.integers(mz.load(whole).unet).keys()
        )

    def test_are_no_larger_than_asked(self, pipeline: Path, target: Path):
        mz.quantize_checkpoint(pipeline, target, storage=mz.Storage(shard_bytes=40_000))
        sizes = [packed.tensor_bytes(path) for path in (target / "unet").glob("*.safetensors")]
        assert max(sizes) <= 40_000

    def test_size_must_be_positive(self):
        with pytest.raises(UsageError, match="shard_bytes is 0"):
            mz.Storage(shard_bytes=0)


class TestVariants:
    HALF = SourceOptions(variant="fp16")

    @pytest.fixture
    def both(self, damaged: Path) -> Path:
        """A pipeline whose models come in float16 as well, but for the text encoder, in shards."""
        pipe = mz.load(damaged, dtype=torch.float16)
        pipe.unet.save_pretrained(damaged / "unet", variant="fp16", max_shard_size="100KB")
        pipe.vae.save_pretrained(damaged / "vae", variant="fp16", max_shard_size="10KB")
        return damaged

    def test_are_taken_where_there_are_any(self, both: Path, target: Path, tmp_path: Path):
        mz.quantize_checkpoint(both, target, options=self.HALF, **UNIFORM)
        pipe = mz.load(both, variant="fp16")
        plan = mz.uniform_plan(pipe.unet, **UNIFORM, model="damaged")
        expected = mz.apply(pipe, plan).save(tmp_path / "expected")
        assert packed.same(stored(target / "unet"), stored(expected / "unet"))
        assert stored(target / "unet")["conv_in.weight"].dtype == torch.float16

    def test_of_the_other_components_lose_their_names(self, both: Path, target: Path):
        mz.quantize_checkpoint(both, target, options=self.HALF)
        copied = {path.name for path in (target / "vae").iterdir()}
        assert len(copied) > 3
        assert not any("fp16" in name for name in copied)
        assert "diffusion_pytorch_model.safetensors" not in copied
        loaded = StableDiffusionPipeline.from_pretrained(target)
        half = mz.load(both, variant="fp16")
        assert packed.same(loaded.vae.state_dict(), half.vae.state_dict())
        assert packed.same(loaded.text_encoder.state_dict(), half.text_encoder.state_dict())
        mz.load(target)  # its digests are those of the copies

    def test_of_a_single_model(self, half: Path, target: Path):
        model = UNet2DConditionModel.from_pretrained(half)
        model.half().save_pretrained(half, variant="ema")
        mz.quantize_checkpoint(half, target, options=SourceOptions(variant="ema"))
        assert packed.same(stored(target), mz.quantize_denoiser(model).state_dict())

    def test_that_are_not_there_are_refused(self, half: Path, pipeline: Path, target: Path):
        for source in (half, pipeline):
            with pytest.raises(UsageError, match=r"no files of weights of 'fp16'; leave it out"):
                mz.quantize_checkpoint(source, target, options=self.HALF)
        assert list(target.parent.iterdir()) == []

    def test_a_folder_has_no_revisions(self, half: Path, target: Path):
        with pytest.raises(UsageError, match=r"revision: .* is not a repository of the Hub"):
            mz.quantize_checkpoint(half, target, options=SourceOptions(revision="main"))


def test_a_repository_is_downloaded_as_asked(pipeline: Path, target: Path, monkeypatch):
    asked = []

    def download(repository: str, options: SourceOptions) -> Path:
        asked.append((repository, options))
        return pipeline

    monkeypatch.setattr(loading, "download_pipeline", download)
    options = SourceOptions(revision="v1", token="hf_x")
    mz.quantize_checkpoint("owner/name", target, options=options)
    assert asked == [("owner/name", options)]
    assert read_plan(target).model == "name"


class TestCalibration:
    @pytest.fixture
    def calibrated(self, pipeline: Path, tmp_path: Path) -> Path:
        """A checkpoint of constant tokens, splits and static inputs."""
        model = mz.load(pipeline).unet
        plan = packed.structured_plan(model, mz.Choice("uint4/channel", "uint8/tensor"))
        packed.packed_after(plan, model).save_pretrained(tmp_path / "calibrated")
        return tmp_path / "calibrated"

    def test_comes_from_a_quantized_checkpoint(
        self, pipeline: Path, target: Path, calibrated: Path
    ):
        mz.quantize_checkpoint(pipeline, target, plan=calibrated)
        assert packed.same(stored(target / "unet"), stored(calibrated))

    def test_does_not_stand_in_a_plan(self, pipeline: Path, target: Path, calibrated: Path):
        needs = r"conv_in \(uint4/channel × uint8/tensor\).* and static ranges"
        with pytest.raises(PlanError, match=needs):
            mz.quantize_checkpoint(pipeline, target, plan=read_plan(calibrated))
        assert list(target.parent.iterdir()) == []

    def test_of_constant_tokens_does_not_either(self, pipeline: Path, target: Path):
        name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
        plan = mz.Plan(
            {name: mz.Choice("int8/channel", "int8/token", structures=(mz.ConstantTokens(1),))}
        )
        with pytest.raises(PlanError, match=r"constant tokens: 1.* leave out constant_tokens$"):
            mz.quantize_checkpoint(pipeline, target, plan=plan)

    def test_must_lie_in_the_folder_itself(
        self, pipeline: Path, target: Path, calibrated: Path, tmp_path: Path
    ):
        elsewhere = (calibrated / WEIGHTS).rename(tmp_path / "secret")
        (calibrated / WEIGHTS).symlink_to(elsewhere)
        with pytest.raises(ModelError, match=r"is a link to .*/secret, outside"):
            mz.quantize_checkpoint(pipeline, target, plan=calibrated)
        assert list(target.parent.iterdir()) == []

    def test_must_be_of_the_plan(self, pipeline: Path, target: Path, calibrated: Path):
        packed.rewrite(calibrated / WEIGHTS, **{"conv_in.input_scale": None})
        with pytest.raises(CheckpointError, match=r"conv_in.input_scale: is missing"):
            mz.quantize_checkpoint(pipeline, target, plan=calibrated)

    def test_must_be_what_was_saved(self, pipeline: Path, target: Path, calibrated: Path):
        """Of what is taken over the new checkpoint has digests, as if it were whole."""
        scale = load_file(calibrated / WEIGHTS)["conv_in.input_scale"]
        packed.rewrite(calibrated / WEIGHTS, **{"conv_in.input_scale": 2 * scale})
        with pytest.raises(CheckpointError, match=r"not those that were saved: conv_in.input_sc"):
            mz.quantize_checkpoint(pipeline, target, plan=calibrated)
        assert list(target.parent.iterdir()) == []


class TestTargets:
    def test_a_pipeline_is_replaced(self, pipeline: Path, target: Path):
        mz.quantize_checkpoint(pipeline, target, weight_bits=8)
        mz.quantize_checkpoint(pipeline, target, weight_bits=2)
        assert packed_layers(mz.load(target).unet)["conv_in"].choice == mz.Choice("int2/channel")

    def test_something_else_is_left_alone(self, pipeline: Path, half: Path, target: Path):
        target.mkdir()
        (target / "letter.txt").write_text("dear")
        with pytest.raises(UsageError, match="holds something else than a pipeline"):
            mz.quantize_checkpoint(pipeline, target)
        with pytest.raises(UsageError, match="holds something else than a packed model"):
            mz.quantize_checkpoint(half, target)

    def test_a_pipeline_is_not_replaced_by_a_model(self, half: Path, pipeline: Path, target: Path):
        shutil.copytree(pipeline, target)
        shutil.copyfile(pipeline / "unet" / "config.json", target / "config.json")
        with pytest.raises(UsageError, match="holds something else than a packed model"):
            mz.quantize_checkpoint(half, target)

    def test_a_packed_model_is_replaced(self, half: Path, target: Path):
        mz.quantize_checkpoint(half, target, weight_bits=8)
        smaller = mz.quantize_checkpoint(half, target, weight_bits=2)
        assert read_plan(target) == smaller.plan

    def test_a_floating_model_is_left_alone(self, half: Path, pipeline: Path, target: Path):
        shutil.copytree(pipeline / "vae", target)
        with pytest.raises(UsageError, match="holds something else than a packed model"):
            mz.quantize_checkpoint(half, target)
        assert packed.same(stored(target), stored(pipeline / "vae"))

    @pytest.mark.parametrize("place", [".", "..", "vae", "vae/out", "new"])
    def test_the_source_is_neither_overwritten_nor_written_into(self, damaged: Path, place: str):
        before = sorted(damaged.rglob("*"))
        with pytest.raises(UsageError, match="holds the source, or lies within it"):
            mz.quantize_checkpoint(damaged, damaged / place)
        assert sorted(damaged.rglob("*")) == before


def test_a_plan_and_widths_do_not_go_together(pipeline: Path, target: Path):
    with pytest.raises(UsageError, match="leave out weight_bits"):
        mz.quantize_checkpoint(pipeline, target, plan=mz.Plan({}), weight_bits=4)
