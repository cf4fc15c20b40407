"""Layers, sizes and multiply-accumulates, checked against PyTorch's own counting."""

import math
from dataclasses import replace

import accelerate
import pytest
import torch
from diffusers import DiffusionPipeline, Lumina2Transformer2DModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mezzotint.errors import ModelError
from mezzotint.models import Call, Role, Sampling, find_denoiser, inventory, record_calls
from tests.models import architectures as published
from tests.models import tiny
from tests.models.architectures import Architecture, by_name, layers_of

LAYER_COUNTS = {
    published.SD15: 282,
    published.SDXL: 794,
    published.PIXART_SIGMA: 287,
    published.SD3: 341,
    published.FLUX: 504,
    published.SANA: 227,
    published.HUNYUAN_DIT: 472,
}

GMACS = {
    published.SD15: (335, 345),
    published.SDXL: (2900, 3100),
    published.PIXART_SIGMA: (2100, 2200),
    published.SD3: (2900, 3000),
    published.FLUX: (28_000, 30_000),
    published.SANA: (1400, 1500),
    published.HUNYUAN_DIT: (5000, 5300),
}


@pytest.mark.parametrize(("architecture", "count"), **by_name(LAYER_COUNTS))
def test_the_number_of_linear_and_conv_layers(architecture: Architecture, count: int):
    assert len(layers_of(architecture)) == count


@pytest.mark.parametrize("architecture", published.ALL, ids=lambda a: a.name)
def test_layers_are_the_modules_of_the_denoiser(architecture: Architecture):
    denoiser = architecture.build()
    modules = {
        name: module
        for name, module in denoiser.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
    layers = layers_of(architecture)
    assert {layer.name for layer in layers} == modules.keys()
    assert sum(x.parameters for x in layers) == sum(m.weight.numel() for m in modules.values())
    for layer in layers:
        module = modules[layer.name]
        assert layer.weight_shape == tuple(module.weight.shape)
        assert layer.has_bias == (module.bias is not None)
        assert layer.kind == type(module).__name__.lower()


@pytest.mark.parametrize("architecture", published.ALL, ids=lambda a: a.name)
def test_layers_hold_nearly_all_parameters(architecture: Architecture):
    total = sum(parameter.numel() for parameter in architecture.build().parameters())
    assert sum(layer.parameters for layer in layers_of(architecture)) > 0.998 * total


@pytest.mark.parametrize(("architecture", "bounds"), **by_name(GMACS))
def test_multiply_accumulates_are_of_the_known_size(
    architecture: Architecture, bounds: tuple[int, int]
):
    gmacs = sum(layer.macs for layer in layers_of(architecture)) / 1e9
    assert bounds[0] < gmacs < bounds[1]


@pytest.mark.parametrize(
    ("architecture", "tokens"),
    [(published.PIXART_SIGMA, 64**2), (published.SD3, 64**2), (published.SANA, 32**2)],
    ids=lambda value: getattr(value, "name", value),
)
def test_self_attention_uses_each_weight_once_a_token(architecture: Architecture, tokens: int):
    queries = [x for x in layers_of(architecture) if x.role == Role.SELF_ATTENTION_Q]
    assert queries
    assert {layer.macs for layer in queries} == {tokens * queries[0].parameters}


def test_an_inventory_is_read_off_the_graph_of_the_example_call():
    assert inventory(published.SD15.build()) == layers_of(published.SD15)


def test_layers_come_in_order_of_execution():
    names = [layer.name for layer in layers_of(published.SD15)]
    first = [next(i for i, n in enumerate(names) if n.startswith(p)) for p in ("down", "mid", "up")]
    assert first == sorted(first)
    assert names[-1] == "conv_out"


def test_a_layer_that_is_never_run_comes_last_and_is_unsupported():
    """Hunyuan-DiT hands the pooler's weights to a function instead of running its layers."""
    idle = [layer for layer in layers_of(published.HUNYUAN_DIT) if layer.macs == 0]
    assert layers_of(published.HUNYUAN_DIT)[-len(idle) :] == tuple(idle)
    assert {layer.name.rpartition(".")[0] for layer in idle} == {"time_extra_emb.pooler"}
    assert not any(layer.supported for layer in idle)


def test_multiply_accumulates_agree_with_pytorchs_flop_counter(pipe: DiffusionPipeline):
    _, denoiser = find_denoiser(pipe)
    (call,) = record_calls(pipe, Sampling(("owl", "fox")), limit=1)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        call.run(denoiser)
    counted = counter.get_flop_counts()["Global"]
    matmuls = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.convolution}
    flops = sum(n for operator, n in counted.items() if operator in matmuls)
    assert sum(layer.macs for layer in inventory(denoiser, call)) == flops // 2


def test_multiply_accumulates_are_those_of_the_whole_batch(unet_pipe: DiffusionPipeline):
    (one,) = record_calls(unet_pipe, Sampling(("owl",)), limit=1)
    (two,) = record_calls(unet_pipe, Sampling(("owl", "fox")), limit=1)
    conv_one, conv_two = (
        next(x for x in inventory(unet_pipe.unet, call) if x.name == "conv_in")
        for call in (one, two)
    )
    assert conv_two == replace(conv_one, macs=2 * conv_one.macs)


def test_taking_inventory_leaves_the_denoiser_as_it_was():
    unet = tiny.tiny_unet()
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    inventory(unet)
    assert all(torch.equal(before[name], tensor) for name, tensor in unet.state_dict().items())
    assert not any(module._forward_hooks for module in unet.modules())


def test_an_offloaded_denoiser_has_the_same_inventory():
    unet = tiny.tiny_unet()
    expected = inventory(unet)
    accelerate.cpu_offload(unet, execution_device="cpu")
    assert inventory(unet) == expected


def test_a_denoiser_that_looks_at_values_is_run_on_a_real_call():
    """Lumina 2 reads the lengths of the prompts from their mask."""
    lumina = Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=24,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=1,
        num_kv_heads=1,
        axes_dim_rope=(8, 8, 8),
        axes_lens=(32, 32, 32),
        cap_feat_dim=8,
    ).eval()
    assert {layer.macs for layer in inventory(lumina)} == {None}
    call = Call(
        (),
        {
            "hidden_states": torch.zeros(1, 4, 8, 8),
            "timestep": torch.zeros(1),
            "encoder_hidden_states": torch.zeros(1, 5, 8),
            "encoder_attention_mask": torch.ones(1, 5, dtype=torch.bool),
        },
    )
    assert all(layer.macs for layer in inventory(lumina, call))


def test_a_call_that_does_not_fit_is_an_error():
    with pytest.raises(ModelError, match="UNet2DConditionModel cannot be run on the given call"):
        inventory(tiny.tiny_unet(), Call((torch.zeros(1, 3, 8, 8),), {}))


@pytest.mark.parametrize(
    ("module", "kind", "x"),
    [
        (nn.Linear(6, 4), "linear", (2, 5, 6)),
        (nn.Conv1d(6, 4, 3, groups=2), "conv1d", (2, 6, 9)),
        (nn.Conv2d(6, 4, 3, stride=2, groups=2), "conv2d", (2, 6, 9, 9)),
        (nn.Conv3d(6, 4, 3), "conv3d", (2, 6, 9, 9, 9)),
        (nn.ConvTranspose1d(6, 4, 2, stride=2, groups=2), "conv_transpose1d", (2, 6, 9)),
        (nn.ConvTranspose2d(6, 4, 2, stride=2), "conv_transpose2d", (2, 6, 9, 9)),
        (nn.ConvTranspose3d(6, 4, 2, stride=2), "conv_transpose3d", (2, 6, 4, 4, 4)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_is_described(module: nn.Module, kind: str, x: tuple[int, ...]):
    counter = FlopCounterMode(display=False)
    with counter:
        module(torch.zeros(x))
    (layer,) = inventory(nn.Sequential(module), Call((torch.zeros(x),), {}))
    assert layer.kind == kind
    assert (layer.in_features, layer.out_features) == (6, 4)
    assert layer.parameters == math.prod(module.weight.shape)
    assert layer.macs == counter.get_total_flops() // 2
    assert layer.supported == (kind in {"linear", "conv2d"})
