import copy
import math
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from mezzotint.errors import CalibrationError
from mezzotint.measuring import calls_digest, check_weights, model_digest
from mezzotint.models import Call

SKIP = "up_blocks.1.resnets.0.conv_shortcut"
LAYERS = ("conv_in", SKIP, "time_embedding.linear_1")


class TestDigests:
    def test_the_same_denoiser_has_the_same(self, unet: nn.Module):
        assert model_digest(unet) == model_digest(copy.deepcopy(unet))

    def test_one_changed_weight_changes_it(self, unet: nn.Module):
        before = model_digest(unet)
        unet.conv_norm_out.bias.data[3] += 1e-3
        assert model_digest(unet) != before

    def test_a_renamed_weight_changes_it(self):
        layer = nn.Linear(2, 2)
        assert model_digest(nn.ModuleDict({"a": layer})) != model_digest(
            nn.ModuleDict({"b": layer})
        )

    def test_fewer_calls_or_another_output_change_it(self, calls: Sequence[Call]):
        known = {calls_digest(calls), calls_digest(calls[:1])}
        calls[0].output[0, 0, 0, 0] += 1e-3
        known.add(calls_digest(calls))
        assert len(known) == 3

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_half_precision_is_hashed_too(self, unet: nn.Module, dtype: torch.dtype):
        assert model_digest(copy.deepcopy(unet).to(dtype)) != model_digest(unet)

    def test_a_call_without_output_is_refused(self, calls: Sequence[Call]):
        with pytest.raises(CalibrationError, match="no recorded output"):
            calls_digest([Call(calls[0].args, calls[0].kwargs)])


class TestCheckWeights:
    def test_sound_weights_pass(self, unet: nn.Module):
        check_weights(unet, LAYERS)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_nan_and_infinity_name_the_layer(self, unet: nn.Module, value: float):
        unet.get_submodule(SKIP).weight.data[0, 0] = value
        with pytest.raises(CalibrationError, match=f"layer {SKIP}: the weight holds NaN"):
            check_weights(unet, LAYERS)

    @pytest.mark.parametrize("name", ["conv_in.bias", "conv_norm_out.weight", "conv_norm_out.bias"])
    def test_biases_and_norms_are_told_as_what_they_are(self, unet: nn.Module, name: str):
        unet.get_parameter(name).data[0] = math.nan
        layer, _, tensor = name.rpartition(".")
        with pytest.raises(CalibrationError, match=f"layer {layer}: the {tensor} holds NaN"):
            check_weights(unet, LAYERS)
