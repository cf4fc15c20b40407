"""Which layers are exceptions, by their roles."""

import pytest
from torch import nn

from mezzotint.models import example_call, layers_in, trace_graph
from mezzotint.plan import Choice
from mezzotint.recipes.mpqdm.exempt_layers import exemptions
from tests.models import tiny

WIDE = Choice("uint8/channel", "uint8/tensor")


def layers_of(denoiser: nn.Module):
    graph = trace_graph(denoiser, example_call(denoiser))
    return [layer for layer in layers_in(denoiser, graph) if layer.supported]


@pytest.fixture(scope="module")
def unet():
    return layers_of(tiny.tiny_unet())


@pytest.fixture(scope="module")
def pixart():
    return layers_of(tiny.tiny_pixart())


def named(found, choice):
    return {name for name, each in found.items() if each.choice == choice}


def test_a_unet_keeps_its_ends_and_time_embedding_at_eight_bits(unet):
    assert named(exemptions(unet, "floating", inputs=True), WIDE) == {
        "conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2"
    }  # fmt: skip


def test_time_projections_inside_blocks_are_no_exception(unet):
    assert not any("time_emb_proj" in name for name in exemptions(unet, "floating", inputs=True))


def test_shortcuts_and_down_sampling_stay_floating(unet):
    floating = named(exemptions(unet, "floating", inputs=True), Choice())
    assert floating == {
        layer.name for layer in unet
        if "conv_shortcut" in layer.name or "downsamplers" in layer.name
    }  # fmt: skip
    assert len(floating) > 1


def test_quantized_shortcuts_are_like_other_layers(unet):
    assert not named(exemptions(unet, "quantized", inputs=True), Choice())


def test_a_transformer_keeps_its_patches_and_last_projection(pixart):
    assert named(exemptions(pixart, "floating", inputs=True), WIDE) == {
        "pos_embed.proj",
        "proj_out",
        "adaln_single.emb.timestep_embedder.linear_1",
        "adaln_single.emb.timestep_embedder.linear_2",
    }


def test_floating_inputs_stay_so_in_exceptions(unet):
    found = exemptions(unet, "floating", inputs=False)
    assert found["conv_in"].choice == Choice("uint8/channel")


def test_every_exception_says_why(unet):
    assert all(each.reason for each in exemptions(unet, "floating", inputs=True).values())


def test_of_a_model_without_roles_the_first_and_last_layers_to_run_are_exceptions(unet):
    plain = [layer for layer in unet if layer.role.value not in ("input", "output")]
    found = exemptions(plain, "floating", inputs=True)
    assert "first layer" in found["down_blocks.0.resnets.0.conv1"].reason
    assert "last layer" in found["up_blocks.1.resnets.1.conv2"].reason
