"""A packed denoiser comes back bit for bit, however diffusers is told to load it."""

from pathlib import Path

import accelerate
import pytest
import torch
from diffusers import UNet2DConditionModel, WanTransformer3DModel
from diffusers.hooks import apply_group_offloading

import mezzotint as mz
from mezzotint.errors import UsageError
from mezzotint.runtime import packed_layers
from tests.checkpoint import packed

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16, torch.float16, None]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def load(folder: Path, dtype: torch.dtype | None = None, **options: object) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(folder, dtype=dtype, **options)


class TestDtypes:
    @dtypes
    def test_no_dtype_touches_codes_scales_and_zero_points(
        self, unet: UNet2DConditionModel, unet_folder: Path, dtype: torch.dtype | None
    ):
        loaded = load(unet_folder, dtype)
        assert packed.same(packed.integers(loaded), packed.integers(unet))
        weights = (layer.dequantized_weight() for layer in packed_layers(loaded).values())
        assert all(weight.any() for weight in weights)

    @dtypes
    def test_what_is_not_packed_takes_the_dtype_asked_for(
        self, unet_folder: Path, dtype: torch.dtype | None
    ):
        loaded = load(unet_folder, dtype)
        assert {p.dtype for p in loaded.parameters()} == {dtype or torch.float32}
        assert loaded.dtype == (dtype or torch.float32)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_it_computes_in_the_dtype_asked_for(
        self, unet: UNet2DConditionModel, unet_folder: Path, dtype: torch.dtype
    ):
        output, expected = packed.run(load(unet_folder, dtype), dtype), packed.run(unet)
        assert output.dtype == dtype
        tolerance = 0.0 if dtype == torch.float32 else 0.1
        assert (output.float() - expected).norm() <= tolerance * expected.norm()

    def test_modules_kept_in_float32_stay_so(self, tmp_path: Path):
        model = WanTransformer3DModel(
            num_attention_heads=1, attention_head_dim=12, ffn_dim=8, num_layers=1, text_dim=8
        )
        mz.quantize_denoiser(model, weight_bits=8)
        model.save_pretrained(tmp_path)
        loaded = WanTransformer3DModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
        time, block = loaded.condition_embedder.time_embedder, loaded.blocks[0]
        assert {time.linear_1.bias.dtype, block.scale_shift_table.dtype} == {torch.float32}
        assert block.attn1.to_q.bias.dtype == torch.bfloat16
        latent, text = (torch.ones(1, 16, 1, 2, 2), torch.ones(1, 3, 8))
        with torch.no_grad():
            (output,) = loaded(
                latent.bfloat16(), torch.tensor([500]), text.bfloat16(), return_dict=False
            )
        assert output.dtype == torch.bfloat16
        stock = loaded.dequantize().condition_embedder.time_embedder
        assert stock.linear_1.weight.dtype == torch.float32


class TestPlacement:
    @pytest.mark.parametrize("device_map", [{"": "cpu"}, "balanced", "auto"], ids=str)
    def test_a_device_map_changes_nothing(
        self, unet: UNet2DConditionModel, unet_folder: Path, device_map: object
    ):
        loaded = load(unet_folder, device_map=device_map)
        assert packed.same(packed.integers(loaded.to(CPU)), packed.integers(unet))

    def test_shards_load_like_one_file(self, unet: UNet2DConditionModel, tmp_path: Path):
        unet.save_pretrained(tmp_path, max_shard_size="40KB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 2
        loaded = load(tmp_path)
        assert packed.same(loaded.state_dict(), unet.state_dict())
        assert torch.equal(packed.run(loaded), packed.run(unet))

    @pytest.mark.parametrize("offload", ["cpu", "disk"])
    def test_offloaded_layers_fetch_their_codes(
        self, unet: UNet2DConditionModel, unet_folder: Path, tmp_path: Path, offload: str
    ):
        loaded = load(unet_folder)
        if offload == "cpu":
            accelerate.cpu_offload(loaded, CPU, offload_buffers=True)
        else:
            accelerate.disk_offload(loaded, str(tmp_path), CPU, offload_buffers=True)
        assert all(tensor.is_meta for tensor in loaded.state_dict().values())
        assert torch.equal(packed.run(loaded), packed.run(unet))

    @pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
    def test_diffusers_group_offloading_works(
        self, unet: UNet2DConditionModel, unet_folder: Path, kind: str
    ):
        loaded = load(unet_folder)
        apply_group_offloading(loaded, CPU, offload_type=kind, num_blocks_per_group=1)
        assert torch.equal(packed.run(loaded), packed.run(unet))

    @pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
    def test_so_does_group_offloading_to_disk_with_structures(self, tmp_path: Path, kind: str):
        expected = packed.run(packed.structured_unet())
        structured = packed.structured_unet()
        apply_group_offloading(
            structured,
            CPU,
            offload_type=kind,
            num_blocks_per_group=1,
            offload_to_disk_path=str(tmp_path),
        )
        assert torch.equal(packed.run(structured), expected)

    @pytest.mark.parametrize("quantized", [True, False], ids=["packed", "float"])
    def test_a_device_map_to_disk_is_refused_with_the_way_that_works(
        self, unet_folder: Path, float_folder: Path, tmp_path: Path, quantized: bool
    ):
        folder = unet_folder if quantized else float_folder / "unet"
        config = {} if quantized else {"quantization_config": mz.MezzotintConfig()}
        with pytest.raises(UsageError, match=r"device_map: .*accelerate\.disk_offload"):
            load(folder, device_map={"": "disk"}, offload_folder=tmp_path, **config)
