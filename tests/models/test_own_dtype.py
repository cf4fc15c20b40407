"""A checkpoint's own dtype is what it is loaded in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import mezzotint as mz
from mezzotint.models.own_dtype import computable, folder_dtype
from tests.models import tiny

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
PLAN = mz.Plan({"conv_in": mz.Choice("int4/channel"), "conv_out": mz.Choice("int8/channel")})


@pytest.fixture(scope="module", params=[torch.float32, torch.float16, torch.bfloat16], ids=str)
def stored(request: pytest.FixtureRequest, tmp_path_factory) -> tuple[Path, torch.dtype]:
    """A pipeline's folder, and the dtype that it is stored in."""
    folder = tmp_path_factory.mktemp("own") / "tiny"
    pipe = tiny.tiny_stable_diffusion()
    pipe.register_modules(unet=tiny.smallest_unet())
    pipe.to(request.param).save_pretrained(folder)
    tiny.write_generation(folder, num_inference_steps=1, guidance_scale=1.0)
    return folder, request.param


def test_processors_compute_float16_in_float32(stored):
    folder, dtype = stored
    expected = torch.float32 if dtype == torch.float16 else dtype
    assert folder_dtype(folder, CPU) == expected
    pipe = mz.load(folder)
    assert {pipe.unet.dtype, pipe.vae.dtype, pipe.text_encoder.dtype} == {expected}


def test_gpus_compute_in_what_is_stored(stored):
    folder, dtype = stored
    assert folder_dtype(folder, CUDA) == computable(dtype, CUDA) == dtype


def test_what_was_saved_in_16_bits_is_loaded_so(stored, tmp_path):
    """Scales of packed layers are in float16 whatever the rest is."""
    folder, dtype = stored
    packed = mz.apply(mz.load(folder), PLAN).save(tmp_path / "packed")
    assert folder_dtype(packed, CUDA) == dtype
    if dtype == torch.bfloat16:
        again = mz.load(packed)
        assert again.unet.dtype == torch.bfloat16
        assert mz.generate(again, mz.Sampling(("owl",))).shape == (1, 16, 16, 3)


def test_a_variant_counts_where_it_is_read(stored):
    folder, dtype = stored
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(path).items()}
    other = path.with_name("diffusion_pytorch_model.brief.safetensors")
    save_file(tensors, other, {"format": "pt"})
    try:
        assert folder_dtype(folder, CUDA, "brief") == torch.bfloat16
        assert mz.load(folder, variant="brief").unet.dtype == torch.bfloat16
        assert mz.load(folder, variant="brief", stream=True).unet.dtype == torch.bfloat16
        assert folder_dtype(folder, CUDA) == dtype
    finally:
        other.unlink()
