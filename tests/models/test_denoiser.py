import pytest
from diffusers import (
    ControlNetModel,
    DiffusionPipeline,
    StableDiffusionControlNetPipeline,
    WanPipeline,
    WanTransformer3DModel,
)

from mezzotint.errors import ModelError
from mezzotint.models import find_denoiser
from tests.models import tiny


def test_the_unet_of_stable_diffusion(unet_pipe: DiffusionPipeline):
    assert find_denoiser(unet_pipe) == ("unet", unet_pipe.unet)


def test_the_transformer_of_pixart(pixart_pipe: DiffusionPipeline):
    assert find_denoiser(pixart_pipe) == ("transformer", pixart_pipe.transformer)


def test_a_controlnet_only_assists():
    base = tiny.tiny_stable_diffusion()
    pipe = StableDiffusionControlNetPipeline(
        **base.components,
        controlnet=ControlNetModel.from_unet(base.unet),
        requires_safety_checker=False,
    )
    assert find_denoiser(pipe) == ("unet", base.unet)


def tiny_wan() -> WanTransformer3DModel:
    return WanTransformer3DModel(
        num_attention_heads=1, attention_head_dim=12, ffn_dim=8, num_layers=1, text_dim=8
    )


def test_several_denoisers_are_named_in_the_error():
    pipe = WanPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=None,
        scheduler=None,
        transformer=tiny_wan(),
        transformer_2=tiny_wan(),
    )
    with pytest.raises(ModelError, match=r"several denoisers \(transformer, transformer_2\)"):
        find_denoiser(pipe)


def test_a_pipeline_without_denoiser_lists_its_components():
    class Decoder(DiffusionPipeline):
        def __init__(self, vae: object) -> None:
            super().__init__()
            self.register_modules(vae=vae)

    with pytest.raises(ModelError, match=r"has no denoiser.*\(vae\)"):
        find_denoiser(Decoder(tiny.tiny_vae()))
