"""Denoisers that read a layer's weight, or call a layer by keyword, with packed layers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import pytest
import torch
from peft import LoraConfig
from torch import Tensor, nn

from mezzotint.plan import uniform_plan
from mezzotint.runtime import dequantize_module, packed_copy, packed_layers
from tests.runtime.layers import noise


@dataclass(frozen=True)
class Family:
    """A denoiser class of diffusers, a tiny configuration, and the arguments of a call."""

    class_name: str
    config: dict[str, Any]
    arguments: Callable[[], dict[str, Any]]

    def packed(self) -> nn.Module:
        """An instance of random weights, all of its layers in 8 bits."""
        torch.manual_seed(0)
        model = getattr(diffusers, self.class_name)(**self.config).eval()
        return packed_copy(model, uniform_plan(model, weight_bits=8))

    @torch.no_grad()
    def run(self, model: nn.Module) -> Tensor:
        """The output of a call."""
        output = model(**self.arguments(), return_dict=False)[0]
        return output[0] if isinstance(output, list) else output


ONE = torch.tensor([1.0])

FAMILIES = {
    "hunyuan-dit": Family(
        "HunyuanDiT2DModel",
        {
            "sample_size": 8,
            "patch_size": 2,
            "in_channels": 4,
            "num_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "hidden_size": 16,
            "cross_attention_dim": 8,
            "cross_attention_dim_t5": 8,
            "pooled_projection_dim": 4,
            "text_len": 3,
            "text_len_t5": 4,
            "use_style_cond_and_image_meta_size": False,
        },
        lambda: {
            "hidden_states": noise(1, 4, 8, 8),
            "timestep": ONE,
            "encoder_hidden_states": noise(1, 3, 8),
            "text_embedding_mask": torch.ones(1, 3),
            "encoder_hidden_states_t5": noise(1, 4, 8),
            "text_embedding_mask_t5": torch.ones(1, 4),
        },
    ),
    "z-image": Family(
        "ZImageTransformer2DModel",
        {
            "in_channels": 4,
            "dim": 32,
            "n_layers": 1,
            "n_refiner_layers": 1,
            "n_heads": 2,
            "n_kv_heads": 2,
            "cap_feat_dim": 8,
            "axes_dims": [4, 6, 6],
            "axes_lens": [64, 32, 32],
        },
        lambda: {"x": [noise(4, 1, 8, 8)], "t": ONE, "cap_feats": [noise(5, 8)]},
    ),
    "kandinsky-3": Family(
        "Kandinsky3UNet",
        {
            "time_embedding_dim": 8,
            "groups": 2,
            "attention_head_dim": 4,
            "layers_per_block": 3,
            "block_out_channels": (8, 8, 8, 8),
            "cross_attention_dim": 8,
            "encoder_hid_dim": 8,
        },
        lambda: {
            "sample": noise(1, 4, 8, 8),
            "timestep": ONE,
            "encoder_hidden_states": noise(1, 3, 8),
            "encoder_attention_mask": torch.ones(1, 3),
        },
    ),
    "animate-diff": Family(
        "UNetMotionModel",
        {
            "block_out_channels": (8, 8),
            "layers_per_block": 1,
            "norm_num_groups": 2,
            "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
            "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"),
            "cross_attention_dim": 8,
            "num_attention_heads": 2,
            "motion_num_attention_heads": 2,
        },
        lambda: {
            "sample": noise(1, 4, 2, 8, 8),
            "timestep": ONE,
            "encoder_hidden_states": noise(1, 3, 8).repeat(2, 1, 1),
        },
    ),
    "wan": Family(
        "WanTransformer3DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "in_channels": 4,
            "out_channels": 4,
            "text_dim": 8,
            "freq_dim": 8,
            "ffn_dim": 16,
            "num_layers": 1,
            "rope_max_seq_len": 32,
        },
        lambda: {
            "hidden_states": noise(1, 4, 2, 8, 8),
            "timestep": torch.tensor([1]),
            "encoder_hidden_states": noise(1, 3, 8),
        },
    ),
    "flux": Family(
        "FluxTransformer2DModel",
        {
            "in_channels": 4,
            "num_layers": 1,
            "num_single_layers": 1,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "joint_attention_dim": 8,
            "pooled_projection_dim": 8,
            "axes_dims_rope": (4, 4, 8),
        },
        lambda: {
            "hidden_states": noise(1, 4, 4),
            "timestep": ONE,
            "encoder_hidden_states": noise(1, 3, 8),
            "pooled_projections": noise(1, 8),
            "img_ids": torch.zeros(4, 3),
            "txt_ids": torch.zeros(3, 3),
        },
    ),
}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_packed_model_computes_what_its_dequantized_one_does(family: Family):
    model = family.packed()
    assert len(packed_layers(model)) > 8
    plain = dequantize_module(copy.deepcopy(model))
    assert not packed_layers(plain)
    torch.testing.assert_close(family.run(model), family.run(plain), rtol=1e-4, atol=1e-4)


def test_an_adapter_of_flux_is_computed_over_packed_layers():
    family = FAMILIES["flux"]
    model = family.packed()
    plain, without = dequantize_module(copy.deepcopy(model)), family.run(model)
    for each in (model, plain):
        torch.manual_seed(1)
        targets = ["to_q", "to_k", "to_v", "proj_out", "norm.linear"]
        each.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    adapted = family.run(model)
    assert not torch.allclose(adapted, without, atol=1e-3)
    torch.testing.assert_close(adapted, family.run(plain), rtol=1e-4, atol=1e-4)
