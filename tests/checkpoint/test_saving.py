"""Saved pipelines: complete or absent, and ready for diffusers."""

import json
import os
import shutil
from pathlib import Path

import pytest
from diffusers import DiffusionPipeline

import mezzotint as mz
from mezzotint._journal import Record
from mezzotint.checkpoint import MEASUREMENTS_FILE, read_plan, save_pipeline
from mezzotint.errors import CheckpointError, PlanError, UsageError
from tests.checkpoint import packed
from tests.models import tiny


def content(folder: Path) -> dict[str, bytes]:
    """Every file below it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def broken(result: mz.Result) -> DiffusionPipeline:
    """A quantized pipeline whose autoencoder has lost its weights: saving it fails half-way."""
    pipe = mz.load(result.pipeline.name_or_path)
    pipe.register_modules(unet=result.denoiser, vae=pipe.vae.to("meta"))
    return pipe


class TestContent:
    def test_diffusers_writes_its_part(self, saved: Path):
        index = json.loads((saved / "model_index.json").read_text())
        assert index["_class_name"] == "StableDiffusionPipeline"
        assert index["unet"] == ["diffusers", "UNet2DConditionModel"]
        assert (saved / "unet" / packed.WEIGHTS).is_file()

    def test_the_plan_stands_in_the_config(self, result: mz.Result, saved: Path):
        config = json.loads((saved / "unet" / "config.json").read_text())["quantization_config"]
        del config["sha256"]
        assert config == {"quant_method": "mezzotint", "plan": result.plan.to_dict()}

    def test_the_file_holds_the_packed_tensors_bit_for_bit(self, result: mz.Result, saved: Path):
        stored = packed.load_file(saved / "unet" / packed.WEIGHTS)
        assert packed.same(stored, dict(result.denoiser.state_dict()))

    def test_nothing_can_be_unpickled(self, saved: Path):
        assert not [name for name in content(saved) if name.endswith((".bin", ".pt", ".pkl"))]

    @pytest.mark.parametrize("name", ["generation.json", "prompts.txt", "NOTICE"])
    def test_companions_of_the_original_come_along(
        self, float_folder: Path, saved: Path, name: str
    ):
        assert (saved / name).read_text() == (float_folder / name).read_text()

    def test_files_that_happen_to_lie_around_do_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        (tmp_path / "NOTICE").write_text("of another project")
        monkeypatch.chdir(tmp_path)
        pipe = tiny.tiny_stable_diffusion()
        mz.quantize_denoiser(pipe.unet, weight_bits=8)
        assert not (save_pipeline(pipe, "out") / "NOTICE").exists()

    def test_the_card_says_how_to_load_it(self, saved: Path):
        card = (saved / "README.md").read_text()
        assert "# tiny-w4a8\n\ntiny, quantized with" in card
        assert "83 layers of the\n`unet` are packed" in card
        assert "import mezzotint" in card
        assert "Unknown quantization type" in card

    def test_measurements_are_written_where_there_are_any(self, result: mz.Result, tmp_path: Path):
        record = Record({"model": "abc"}, {"conv_in | int4/channel | float": {"noise": 0.1}})
        folder = save_pipeline(result.pipeline, tmp_path / "with", record)
        assert Record.read(folder / MEASUREMENTS_FILE) == record
        folder = save_pipeline(result.pipeline, tmp_path / "without")
        assert not (folder / MEASUREMENTS_FILE).exists()

    def test_a_loaded_pipeline_can_be_saved_again(self, saved: Path, tmp_path: Path):
        again = save_pipeline(mz.load(saved), tmp_path / saved.name)
        left, right = content(saved), content(again)
        assert left.keys() == right.keys()
        assert left[f"unet/{packed.WEIGHTS}"] == right[f"unet/{packed.WEIGHTS}"]
        assert read_plan(again) == read_plan(saved)

    def test_the_folder_follows_the_umask(self, saved: Path):
        umask = os.umask(0)
        os.umask(umask)
        assert saved.stat().st_mode & 0o777 == 0o777 & ~umask


class TestCompleteOrAbsent:
    def test_a_failure_writes_nothing(self, broken: DiffusionPipeline, tmp_path: Path):
        with pytest.raises(Exception, match="meta"):
            save_pipeline(broken, tmp_path / "out")
        assert not list(tmp_path.iterdir())

    def test_a_failure_leaves_what_was_there(
        self, broken: DiffusionPipeline, saved: Path, saved_copy: Path
    ):
        with pytest.raises(Exception, match="meta"):
            save_pipeline(broken, saved_copy)
        assert content(saved_copy) == content(saved)
        assert list(saved_copy.parent.iterdir()) == [saved_copy]

    def test_success_replaces_the_pipeline_there(
        self, result: mz.Result, float_folder: Path, tmp_path
    ):
        folder = shutil.copytree(float_folder, tmp_path / "out")
        (folder / "left-over.txt").write_text("old")
        save_pipeline(result.pipeline, folder)
        assert read_plan(folder) == result.plan
        assert not (folder / "left-over.txt").exists()
        assert list(tmp_path.iterdir()) == [folder]

    @pytest.mark.parametrize("place", ["tiny", "tiny/unet/packed", "link"])
    def test_the_source_of_the_pipeline_is_left_alone(
        self, float_folder: Path, tmp_path: Path, place: str
    ):
        folder = shutil.copytree(float_folder, tmp_path / "tiny")
        (tmp_path / "link").symlink_to(folder)
        pipe = mz.load(folder)
        result = mz.apply(pipe, mz.uniform_plan(pipe.unet, weight_bits=8))
        with pytest.raises(UsageError, match="holds the source, or lies within it"):
            result.save(tmp_path / place)
        assert content(folder) == content(float_folder)

    def test_a_folder_of_other_things_is_left_alone(self, result: mz.Result, tmp_path: Path):
        (tmp_path / "diary.txt").write_text("dear")
        with pytest.raises(UsageError, match="holds something else than a pipeline"):
            save_pipeline(result.pipeline, tmp_path)
        assert content(tmp_path) == {"diary.txt": b"dear"}

    def test_an_empty_folder_is_filled(self, result: mz.Result, tmp_path: Path):
        assert read_plan(save_pipeline(result.pipeline, tmp_path)) == result.plan

    def test_a_file_is_not_replaced(self, result: mz.Result, tmp_path: Path):
        (tmp_path / "out").write_text("dear")
        with pytest.raises(UsageError, match="is a file"):
            save_pipeline(result.pipeline, tmp_path / "out")

    def test_a_float_pipeline_is_refused(self, float_folder: Path, tmp_path: Path):
        with pytest.raises(CheckpointError, match="unet is not quantized; quantize it first"):
            save_pipeline(mz.load(float_folder), tmp_path / "out")
        assert not list(tmp_path.iterdir())

    def test_a_dequantized_pipeline_is_refused(self, saved: Path, tmp_path: Path):
        pipe = mz.load(saved)
        pipe.unet.dequantize()
        with pytest.raises(CheckpointError, match="not quantized"):
            save_pipeline(pipe, tmp_path / "out")


class TestReadPlan:
    def test_of_a_pipelines_folder(self, result: mz.Result, saved: Path):
        assert read_plan(saved) == result.plan

    def test_of_a_denoisers_folder(self, result: mz.Result, saved: Path):
        assert read_plan(saved / "unet") == result.plan

    def test_of_a_file(self, result: mz.Result, tmp_path: Path):
        result.plan.save(tmp_path / "plan.json")
        assert read_plan(tmp_path / "plan.json") == result.plan

    def test_of_a_float_pipeline(self, float_folder: Path):
        with pytest.raises(PlanError, match=f"{float_folder}: no component's config.json holds"):
            read_plan(float_folder)

    def test_of_a_file_that_is_absent(self, tmp_path: Path):
        with pytest.raises(PlanError, match=r"plan\.json: no such file"):
            read_plan(tmp_path / "plan.json")

    def test_a_malformed_plan_names_the_file(self, saved_copy: Path):
        packed.edit_config(saved_copy / "unet", lambda config: config["plan"].update(layers=[]))
        with pytest.raises(PlanError, match=r"unet/config\.json: quantization_config\.plan: field"):
            read_plan(saved_copy)
