import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import load_file, save_file

from mezzotint.checkpoint.streaming import load_streamed
from mezzotint.errors import CheckpointError, ModelError, UsageError
from mezzotint.models import load_pipeline, loading, source
from mezzotint.models.source import SourceOptions

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def test_a_folder_loads_as_the_stock_pipeline(unet_folder: Path):
    pipe = load_pipeline(unet_folder)
    assert type(pipe) is StableDiffusionPipeline
    assert pipe.unet.dtype == torch.float32
    assert not pipe.unet.training


def test_an_embedded_name_loads(unet_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(source, "_zoo", lambda: unet_folder.parent)
    assert type(load_pipeline("tiny-turbo")) is StableDiffusionPipeline


def test_an_embedded_pixart_loads_without_a_word(
    pixart_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(source, "_zoo", lambda: pixart_folder.parent)
    verbosity = diffusers_logging.get_verbosity()
    load_pipeline("tiny-pixart")
    assert capfd.readouterr() == ("", "")
    assert diffusers_logging.get_verbosity() == verbosity


def test_weights_come_in_the_dtype_asked_for(unet_folder: Path):
    pipe = load_pipeline(unet_folder, dtype=torch.bfloat16)
    assert {pipe.unet.dtype, pipe.vae.dtype, pipe.text_encoder.dtype} == {torch.bfloat16}


def test_loading_leaves_the_libraries_progress_bars_as_they_were(unet_folder: Path):
    before = diffusers_logging.is_progress_bar_enabled()
    load_pipeline(unet_folder)
    assert diffusers_logging.is_progress_bar_enabled() is before


@pytest.mark.parametrize("device", ["teapot", "meta", ""])
@pytest.mark.parametrize("load", [load_pipeline, load_streamed])
def test_an_unusable_device_is_named(unet_folder: Path, load, device: str):
    with pytest.raises(ModelError, match=f"^{device}: cannot be used"):
        load(unet_folder, device=device)


@pytest.mark.parametrize(("device", "why"), [("quux", "no device has that name"), ("meta", "")])
def test_the_devices_that_are_here_are_named(unet_folder: Path, device: str, why: str):
    with pytest.raises(ModelError) as caught:
        load_pipeline(unet_folder, device=device)
    assert f"{device}: cannot be used ({why}" in str(caught.value)
    assert "; name one that is here and has room (--device): cpu" in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.fixture
def half_folder(unet_copy: Path) -> Path:
    """A pipeline whose denoiser and autoencoder come in float16 as well."""
    pipe = load_pipeline(unet_copy, dtype=torch.float16)
    for name in ("unet", "vae"):
        pipe.components[name].save_pretrained(unet_copy / name, variant="fp16")
    return unet_copy


@pytest.mark.parametrize("load", [load_pipeline, load_streamed])
def test_a_variant_is_loaded_where_there_are_files_of_it(half_folder: Path, load):
    pipe = load(half_folder, options=SourceOptions(variant="fp16"))
    assert torch.equal(pipe.vae.decoder.conv_in.weight, pipe.vae.decoder.conv_in.weight.half())


@pytest.mark.parametrize("load", [load_pipeline, load_streamed])
def test_a_variant_that_is_not_there_is_told_with_those_that_are(half_folder: Path, load):
    complaint = r"^variant: .* no files of weights of 'nope'; it has fp16: name that \(--variant\)"
    with pytest.raises(UsageError, match=complaint):
        load(half_folder, options=SourceOptions(variant="nope"))


def test_a_variant_of_a_folder_without_any_is_to_be_left_out(unet_folder: Path):
    with pytest.raises(UsageError, match=r"of 'fp16'; leave it out \(--variant\)$"):
        load_pipeline(unet_folder, options=SourceOptions(variant="fp16"))


def test_a_repositorys_missing_variant_is_told(monkeypatch: pytest.MonkeyPatch, unet_folder: Path):
    def download(*_: object, variant: str, **__: object) -> str:
        raise ValueError(f"You are trying to load model files of the `variant={variant}`, but no")

    monkeypatch.setattr(
        loading, "hf_hub_download", lambda *_, **__: unet_folder / source.INDEX_FILE
    )
    monkeypatch.setattr(loading, "snapshot_download", lambda *_, **__: str(unet_folder))
    monkeypatch.setattr(DiffusionPipeline, "download", download)
    with pytest.raises(ModelError, match=r"; name another variant \(--variant\), or leave it out$"):
        load_pipeline("nobody/nothing", options=SourceOptions(variant="nope"))


@pytest.mark.parametrize("kept", [0, 4, 100, -1], ids=["empty", "length", "header", "last-byte"])
def test_a_truncated_safetensors_file_is_named(unet_copy: Path, kept: int):
    path = unet_copy / WEIGHTS
    os.truncate(path, kept if kept >= 0 else path.stat().st_size + kept)
    with pytest.raises(CheckpointError, match=f"{path}: is truncated or damaged.*again"):
        load_pipeline(unet_copy)


def test_a_missing_component_is_named(unet_copy: Path):
    shutil.rmtree(unet_copy / "vae")
    with pytest.raises(
        ModelError, match=r"the component 'vae' that model_index\.json lists is miss"
    ):
        load_pipeline(unet_copy)


def test_a_missing_shard_is_named(unet_copy: Path):
    (unet_copy / WEIGHTS).unlink()
    index = unet_copy / f"{WEIGHTS}.index.json"
    index.write_text(json.dumps({"weight_map": {"conv_in.weight": "part-1.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"part-1\.safetensors: is missing"):
        load_pipeline(unet_copy)


def test_a_shard_index_without_map_is_refused(unet_copy: Path):
    index = unet_copy / f"{WEIGHTS}.index.json"
    index.write_text("[]")
    with pytest.raises(CheckpointError, match="weight_map: is missing"):
        load_pipeline(unet_copy)


def test_a_malformed_index_names_the_line(unet_copy: Path):
    (unet_copy / "model_index.json").write_text("{\n oops")
    with pytest.raises(ModelError, match=r"model_index\.json: not valid JSON \(line 2"):
        load_pipeline(unet_copy)


def test_an_index_that_is_no_pipeline_is_refused(unet_copy: Path):
    (unet_copy / "model_index.json").write_text("{}")
    with pytest.raises(ModelError, match="_class_name: is missing"):
        load_pipeline(unet_copy)


def test_an_unknown_pipeline_class_is_a_model_error(unet_copy: Path):
    path = unet_copy / "model_index.json"
    path.write_text(path.read_text().replace("StableDiffusionPipeline", "NoSuchPipeline"))
    with pytest.raises(ModelError, match="diffusers cannot load it"):
        load_pipeline(unet_copy)


def test_weights_of_another_shape_are_a_model_error(unet_copy: Path):
    tensors = load_file(unet_copy / WEIGHTS)
    tensors["conv_in.weight"] = tensors["conv_in.weight"][:1].clone()
    save_file(tensors, unet_copy / WEIGHTS)
    with pytest.raises(ModelError, match="diffusers cannot load it"):
        load_pipeline(unet_copy)


def test_pickled_weights_are_never_opened(unet_copy: Path):
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(unet_copy / "exploded"),)

    (unet_copy / WEIGHTS).unlink()
    (unet_copy / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError, match="weights must be safetensors"):
        load_pipeline(unet_copy)
    assert not (unet_copy / "exploded").exists()


def test_an_unreachable_hub_is_a_model_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"nobody/nothing.*no local folder.*network connection"):
        load_pipeline("nobody/nothing")


def test_the_loaded_pipeline_is_silent(unet_pipe: DiffusionPipeline):
    assert unet_pipe.progress_bar(total=1).disable
