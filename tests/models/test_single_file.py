"""One safetensors file in its authors' layout: the pipeline that it was written from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel

import mezzotint as mz
from benchmarks.original_layout import original_tensors, write_original
from mezzotint.errors import CheckpointError, ModelError, UsageError
from mezzotint.models import load_pipeline, model_name
from mezzotint.models.single_file_names import tensors_of
from mezzotint.models.source import SourceOptions, resolve
from mezzotint.recipes.default_prompts import default_sampling
from tests.models import tiny


@pytest.fixture(scope="module")
def pipe() -> DiffusionPipeline:
    return tiny.tiny_stable_diffusion()


@pytest.fixture(scope="module")
def config(pipe: DiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline's folder without any weights; read only."""
    folder = tmp_path_factory.mktemp("single") / "configuration"
    pipe.save_pretrained(folder)
    for path in folder.glob("*/*.safetensors"):
        path.unlink()
    tiny.write_generation(folder, num_inference_steps=1, guidance_scale=1.0)
    (folder / "prompts.txt").write_text("owl\n")
    return folder


@pytest.fixture(scope="module")
def file(pipe: DiffusionPipeline, config: Path) -> Path:
    """The whole pipeline in float16; read only."""
    path = config.with_name("tiny.safetensors")
    write_original(pipe, path, torch.float16)
    return path


@pytest.fixture(scope="module")
def loaded(file: Path, config: Path) -> DiffusionPipeline:
    return mz.load(file, config=config)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_every_tensor_is_the_one_that_was_written(loaded, pipe, part):
    expected = pipe.components[part].state_dict()
    found = loaded.components[part].state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor.half().float()), name


def test_the_folders_defaults_are_those_of_the_call(loaded):
    assert mz.generate(loaded, mz.Sampling(("owl",))).shape == (1, 16, 16, 3)
    assert loaded.scheduler.num_inference_steps == 1
    assert default_sampling(loaded, 2).prompts == ("owl", "owl")
    assert not loaded.unet.training


def test_a_quantized_result_goes_back_to_its_dtype(loaded, tmp_path):
    plan = mz.Plan({"conv_in": mz.Choice("int4/channel")})
    result = mz.apply(loaded, plan)
    folder = result.save(tmp_path / "out")
    for path in folder.glob("*/*.safetensors"):
        stored = {n: t for n, t in load_file(path).items() if not n.startswith("conv_in.weight")}
        assert {t.dtype for t in stored.values() if t.is_floating_point()} == {torch.float16}
    assert (folder / "prompts.txt").read_text() == "owl\n"
    assert json.loads((folder / "generation.json").read_text())["num_inference_steps"] == 1
    assert mz.load(folder).unet.dtype == torch.float32
    assert model_name(loaded) == "tiny"


def test_each_component_goes_back_to_its_own_dtype(pipe, config, tmp_path):
    """An autoencoder in float32 in a file that is float16 for the most part."""
    tensors = {
        name: (tensor if name.startswith("first_stage_model.") else tensor.half()).contiguous()
        for name, tensor in original_tensors(pipe)
    }
    save_file(tensors, tmp_path / "tiny.safetensors")
    loaded = mz.load(tmp_path / "tiny.safetensors", config=config)
    plan = mz.Plan({"conv_in": mz.Choice("int4/channel")})
    folder = mz.apply(loaded, plan).save(tmp_path / "out")
    stored = {
        path.parent.name: {t.dtype for n, t in load_file(path).items() if "conv_in.weight" not in n}
        for path in folder.glob("*/*.safetensors")
    }
    assert stored.pop("vae") == {torch.float32}
    assert set(stored) == {"unet", "text_encoder"}
    assert all(torch.float16 in dtypes for dtypes in stored.values())
    assert not any(torch.float32 in dtypes for dtypes in stored.values())


@pytest.mark.parametrize(
    ("kind", "component", "names"),
    [
        (UNet2DConditionModel, "unet", {"model.diffusion_model.out.0.weight"}),
        (AutoencoderKL, "vae", {"first_stage_model.post_quant_conv.bias"}),
        (CLIPTextModel, "text_encoder", {"conditioner.embedders.0.transformer.a"}),
        (CLIPTextModelWithProjection, "text_encoder_2", {"conditioner.embedders.1.model.b"}),
        (T5EncoderModel, "text_encoder_3", {"text_encoders.t5xxl.transformer.c"}),
    ],
    ids=["denoiser", "autoencoder", "clip", "second clip", "t5"],
)
def test_names_tell_the_component(kind, component, names):
    every = {
        "model.diffusion_model.out.0.weight",
        "first_stage_model.post_quant_conv.bias",
        "conditioner.embedders.0.transformer.a",
        "conditioner.embedders.1.model.b",
        "text_encoders.t5xxl.transformer.c",
    }
    tensors = dict.fromkeys(every, torch.empty(0))
    assert tensors_of(tensors, component, kind).keys() == names


def test_a_folder_that_is_no_configuration_is_told_with_the_option(file, tmp_path):
    complaint = r"config: .*nope has no model_index\.json; name the folder .* \(--config\)$"
    with pytest.raises(UsageError, match=complaint):
        mz.load(file, config=tmp_path / "nope")


def test_a_denoiser_alone_gets_the_rest_from_the_folder(pipe, config, tmp_path):
    whole = tmp_path / "whole"
    pipe.save_pretrained(whole)
    tensors = dict(original_tensors(pipe))
    own = {n: t.clone() for n, t in tensors.items() if n.startswith("model.diffusion_model.")}
    save_file(own, tmp_path / "unet.safetensors")
    loaded = mz.load(tmp_path / "unet.safetensors", config=whole)
    for part in ("unet", "vae", "text_encoder"):
        for name, tensor in pipe.components[part].state_dict().items():
            assert torch.equal(loaded.components[part].state_dict()[name], tensor)
    complaint = r"unet\.safetensors: holds no (vae|text_encoder), and there are no weights of it"
    with pytest.raises(ModelError, match=complaint):
        mz.load(tmp_path / "unet.safetensors", config=config)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "model.diffusion_model.middle_block.0.in_layers.2.weight",
            "lacks tensors that the configuration in .* asks for",
        ),
        (
            "first_stage_model.post_quant_conv.bias",
            "lacks tensors that the configuration in .* asks for",
        ),
        (
            "cond_stage_model.transformer.text_model.final_layer_norm.bias",
            r"text_encoder: the file lacks 1 tensor\(s\) of it, such as final_layer_norm\.bias",
        ),
    ],
    ids=["unet", "vae", "text_encoder"],
)
def test_a_file_that_lacks_tensors_is_refused(pipe, config, tmp_path, name, why):
    tensors = {name: tensor.clone() for name, tensor in original_tensors(pipe)}
    del tensors[name]
    save_file(tensors, tmp_path / "tiny.safetensors")
    with pytest.raises(CheckpointError, match=why):
        mz.load(tmp_path / "tiny.safetensors", config=config)


def test_another_architectures_configuration_is_refused(file, pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "other")
    path = tmp_path / "other" / "unet" / "config.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"block_out_channels": [32, 64]}))
    with pytest.raises(ModelError, match=r"load it with the configuration in .*by config"):
        mz.load(file, config=tmp_path / "other")


def test_a_truncated_file_is_named(file, config, tmp_path):
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"{path}: is truncated or damaged"):
        mz.load(path, config=config)


def test_code_in_the_configuration_is_refused(file, config, tmp_path):
    folder = shutil.copytree(config, tmp_path / "configuration")
    (folder / "pipeline.py").write_text("raise SystemExit")
    with pytest.raises(ModelError, match="is code"):
        mz.load(file, config=folder)


def test_without_a_configuration_or_a_network_the_remedy_is_named(file, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    complaint = "holds no configuration, and .* cannot be downloaded .*name the folder .* by config"
    with pytest.raises(ModelError, match=complaint):
        mz.load(file)


def test_what_diffusers_reads_from_no_file_is_refused(file, tmp_path):
    tiny.tiny_pixart_sigma().save_pretrained(tmp_path / "pixart")
    with pytest.raises(ModelError, match="PixArtTransformer2DModel from no single file"):
        mz.load(file, config=tmp_path / "pixart")


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin", ".pkl"])
def test_pickles_are_refused_by_name(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"")
    with pytest.raises(ModelError, match=f"{path}: is a pickle.*convert it to .safetensors"):
        mz.load(path)


def test_a_file_that_is_not_there_is_no_folder(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        resolve(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (SourceOptions(revision="main"), "revision: .* is not a repository of the Hub"),
        (SourceOptions(token="hf_x"), "token: .* is not a repository of the Hub"),
        (SourceOptions(config=Path()), "config: .* is not a single file"),
    ],
    ids=["revision", "token", "config"],
)
def test_a_choice_that_a_folder_does_not_have_is_refused(unet_folder, options, why):
    with pytest.raises(UsageError, match=why):
        load_pipeline(unet_folder, options=options)


def test_a_token_is_in_no_message():
    assert "secret" not in repr(SourceOptions(token="secret"))


def test_a_single_file_is_streamed_by_nobody(file):
    with pytest.raises(ModelError, match="is a single file, which is read as a whole"):
        mz.load(file, stream=True)
