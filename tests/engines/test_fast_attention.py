"""Attention of a whole pipeline in the fastest way, when a user asks for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, UNet2DModel
from diffusers.models.attention_processor import AttnProcessor

from mezzotint import apply, fast_attention, load, uniform_plan
from mezzotint.errors import UsageError
from mezzotint.runtime import has_fast_attention
from mezzotint.runtime.attention import function
from tests.models import tiny


def test_all_models_of_diffusers_in_it_follow():
    pipe = tiny.tiny_stable_diffusion()
    assert fast_attention(pipe) is pipe
    assert has_fast_attention(pipe.unet)
    assert has_fast_attention(pipe.vae)
    fast_attention(pipe, enabled=False)
    assert not has_fast_attention(pipe.unet)
    assert not has_fast_attention(pipe.vae)


def test_a_pipeline_without_such_attention_is_refused():
    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
        add_attention=False,
    )
    pipe = DDPMPipeline(unet, DDIMScheduler())
    with pytest.raises(UsageError, match="DDPMPipeline has no attention layer"):
        fast_attention(pipe)
    fast_attention(pipe, enabled=False)


def test_attention_that_is_written_out_is_refused():
    pipe = tiny.tiny_stable_diffusion()
    pipe.unet.set_attn_processor(AttnProcessor())
    pipe.vae.set_attn_processor(AttnProcessor())
    with pytest.raises(UsageError, match="AttnProcessor2_0"):
        fast_attention(pipe)


def test_packed_pipelines_have_it_also_when_loaded_and_give_the_same_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    pipe = tiny.tiny_stable_diffusion()
    packed = apply(pipe, uniform_plan(pipe.unet, weight_bits=8, act_bits=16))
    packed.save(tmp_path / "packed")
    loaded = load(tmp_path / "packed")
    assert has_fast_attention(loaded.unet)
    assert not has_fast_attention(pipe.unet)

    def image() -> np.ndarray:
        return loaded("a leaf", num_inference_steps=2, output_type="np", generator=seeded()).images

    ways: list[str] = []
    monkeypatch.setattr(function, "FEW", 0)
    monkeypatch.setattr(function.Times, "way", lambda *_: ways.append("blocks") or "blocks")
    fast_attention(loaded)
    fast = image()
    count = len(ways)
    fast_attention(loaded, enabled=False)
    np.testing.assert_allclose(fast, image(), rtol=0, atol=1e-4)
    assert len(ways) == count > 0


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)
