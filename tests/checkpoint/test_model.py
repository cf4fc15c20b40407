"""Abilities of a packed denoiser, by diffusers' own list for quantization backends."""

from pathlib import Path

import pytest
import torch
from diffusers import PixArtTransformer2DModel, UNet2DConditionModel
from torch import nn

import mezzotint as mz
from mezzotint.runtime import packed_layers
from tests.checkpoint import packed
from tests.models import tiny

load = UNet2DConditionModel.from_pretrained


def test_diffusers_knows_that_it_is_quantized(unet_folder: Path):
    model = load(unet_folder)
    assert model.is_quantized
    assert model.quantization_method == "mezzotint"
    assert model.hf_quantizer.is_serializable


def test_it_is_not_cast(unet_folder: Path):
    with pytest.raises(ValueError, match="Casting a quantized model"):
        load(unet_folder).to(torch.float16)


def test_a_transformer_saves_and_loads(tmp_path: Path):
    model = mz.quantize_denoiser(tiny.tiny_pixart().eval(), weight_bits=4, act_bits=8)
    model.save_pretrained(tmp_path)
    loaded = PixArtTransformer2DModel.from_pretrained(tmp_path)
    assert packed.same(loaded.state_dict(), model.state_dict())


class TestDequantize:
    def test_it_gives_a_stock_model(self, unet_folder: Path):
        model = load(unet_folder).dequantize()
        assert not packed_layers(model)
        assert not model.is_quantized
        assert "quantization_config" not in model.config
        assert [type(m) for m in model.modules()] == [type(m) for m in tiny.tiny_unet().modules()]

    def test_its_weights_are_those_the_kernels_saw(
        self, unet: UNet2DConditionModel, unet_folder: Path
    ):
        model = load(unet_folder).dequantize()
        for name, layer in packed_layers(unet).items():
            assert torch.equal(model.get_submodule(name).weight, layer.dequantized_weight())

    def test_it_computes_in_bfloat16(self, unet_folder: Path):
        model = load(unet_folder, dtype=torch.bfloat16).dequantize()
        assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
        assert packed.run(model, torch.bfloat16).isfinite().all()

    def test_saved_it_is_an_ordinary_checkpoint(self, unet_folder: Path, tmp_path: Path):
        model = load(unet_folder).dequantize()
        model.save_pretrained(tmp_path)
        again = load(tmp_path)
        assert getattr(again, "hf_quantizer", None) is None
        assert packed.same(again.state_dict(), model.state_dict())

    def test_it_can_be_quantized_again(self, unet_folder: Path):
        model = mz.quantize_denoiser(load(unet_folder).dequantize(), weight_bits=8)
        assert model.is_quantized


class TestTraining:
    def test_it_is_refused(self, unet_folder: Path):
        assert not load(unet_folder).hf_quantizer.is_trainable

    def test_no_packed_layer_has_anything_to_train(self, unet_folder: Path):
        layers = packed_layers(load(unet_folder)).values()
        assert not [p for layer in layers for p in layer.parameters() if p.requires_grad]


class TestCompile:
    @pytest.fixture(autouse=True)
    def fresh(self):
        torch.compiler.reset()
        yield
        torch.compiler.reset()

    def test_it_is_promised(self, unet_folder: Path):
        assert load(unet_folder).hf_quantizer.is_compileable

    @pytest.mark.parametrize("backend", ["eager", "aot_eager"])
    def test_a_block_becomes_one_graph(self, unet_folder: Path, backend: str):
        block: nn.Module = load(unet_folder).up_blocks[1].resnets[0]
        inputs = torch.randn(1, 48, 8, 8), torch.randn(1, 64)
        with torch.no_grad():
            compiled = torch.compile(block, backend=backend, fullgraph=True)
            torch.testing.assert_close(compiled(*inputs), block(*inputs))
