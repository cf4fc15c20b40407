"""Weights that are elsewhere cannot be quantized; hooks that leave them in place may stay."""

from __future__ import annotations

import accelerate
import pytest
import torch
from accelerate.hooks import CpuOffload, add_hook_to_module
from torch import nn

import mezzotint as mz
from mezzotint.errors import UsageError
from mezzotint.models.offloading import check_not_offloaded, check_stays
from tests.models import tiny


@pytest.fixture
def unet() -> nn.Module:
    return tiny.smallest_unet()


def test_weights_that_come_and_go_with_each_layer_are_refused(unet: nn.Module):
    accelerate.cpu_offload(unet, torch.device("cpu"))
    with pytest.raises(UsageError, match=r"unet: the weights of .* are offloaded.*remove_all_hook"):
        check_not_offloaded("unet", unet)
    accelerate.hooks.remove_hook_from_submodules(unet)
    check_not_offloaded("unet", unet)


def test_so_are_they_before_anything_is_quantized(unet: nn.Module):
    accelerate.cpu_offload(unet, torch.device("cpu"))
    with pytest.raises(UsageError, match="are offloaded"):
        mz.quantize_denoiser(unet, weight_bits=4)


def test_a_model_that_moves_to_run_is_refused_for_training(unet: nn.Module):
    add_hook_to_module(unet, CpuOffload(execution_device=torch.device("cuda")))
    check_not_offloaded("unet", unet)
    with pytest.raises(UsageError, match=r"unet: is moved to cuda .*to\('cuda'\) first"):
        check_stays("unet", unet)


def test_a_model_that_stays_where_it_runs_is_not(unet: nn.Module):
    accelerate.cpu_offload_with_hook(unet, torch.device("cpu"))
    check_not_offloaded("unet", unet)
    check_stays("unet", unet)
