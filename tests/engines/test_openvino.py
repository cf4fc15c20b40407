"""The openvino engine computes what torch computes, after the same plan."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

import mezzotint as mz
from mezzotint.engines import engine_executions
from mezzotint.engines.openvino.arguments import bind
from mezzotint.engines.openvino.conversion import converted
from mezzotint.engines.openvino.weights import integers
from mezzotint.errors import UsageError
from mezzotint.evaluation import sqnr
from mezzotint.formats import MINMAX
from mezzotint.models import find_denoiser, generate
from mezzotint.runtime import PackedWeight
from tests.engines.conftest import PROMPTS, Case, float_case, packed_case
from tests.models import tiny

#: Only the order of floating sums differs.
FLOAT_DB = 80.0

#: A sum that differs in its last bit is now and then rounded to the next of 256 input levels.
ROUNDED_DB = 25.0


def compiled(case: Case):
    return find_denoiser(mz.with_engine(case.pipe, "openvino"))[1]


def agreement(case: Case) -> float:
    """SQNR in dB of openvino's output, where torch's is the signal."""
    output = case.call.run(compiled(case))
    assert output.shape == case.expected.shape
    return decibels(case.expected, output)


def decibels(expected: Tensor, output: Tensor) -> float:
    """SQNR of the worst sample of a batch."""
    return float(sqnr(expected, output).min())


def test_floating_denoisers_agree(unet):
    assert agreement(unet) > FLOAT_DB


def test_timesteps_that_scale_group_norms_agree():
    pipe = tiny.tiny_stable_diffusion()
    pipe.register_modules(unet=tiny.smallest_unet(resnet_time_scale_shift="scale_shift"))
    assert agreement(float_case(pipe)) > FLOAT_DB


def test_simulated_attention_is_refused(unet):
    plan = mz.Plan({}, simulated_attention=mz.SimulatedAttention(q=8))
    simulated = mz.apply(unet.pipe, plan).pipeline
    with pytest.raises(UsageError, match="what attention multiplies, which is simulated"):
        mz.with_engine(simulated, "openvino")


@pytest.mark.parametrize(
    "choices",
    [
        [mz.Choice("int8/channel"), mz.Choice("int4/channel")],
        [mz.Choice("uint3/group16"), mz.Choice("int1/channel"), mz.Choice("uint2/tensor")],
        [mz.Choice("kmeans3/channel"), mz.Choice("uint6/channel"), mz.Choice("int4/group5")],
        [mz.Choice("lut2/channel"), mz.Choice("lut6/channel")],
    ],
    ids=["w8 and w4", "groups and few bits", "codebooks and uneven groups", "lookups"],
)
def test_quantized_weights_alone_agree_as_floats_do(unet, choices):
    assert agreement(packed_case(unet, *choices)) > FLOAT_DB


def test_static_inputs_are_rounded_to_the_scales_of_the_plan(packed, fast, unet):
    # The plan costs far more than the engines differ, so openvino must have followed it.
    assert decibels(packed.expected, packed.call.run(fast.unet)) > ROUNDED_DB
    assert decibels(unet.expected, packed.expected) < ROUNDED_DB


def test_constant_tokens_splits_and_mixed_widths_agree(unet):
    case = packed_case(
        unet,
        mz.Choice("int4/channel"),
        conv_in=mz.Choice("mixed/int2:8,int4:8"),
        mid_block__resnets__0__conv1=mz.Choice("mixed/kmeans1:12,uint2:12,uint3:8"),
        mid_block__resnets__0__conv2=mz.Choice("kmeans1/channel", "uint8/tensor"),
        up_blocks__1__resnets__0__conv_shortcut=mz.Choice(
            "int4/channel",
            structures=(mz.SplitInput(32),),
            part_formats=(("second", "kmeans3/channel"),),
        ),
        down_blocks__1__attentions__0__transformer_blocks__0__attn2__to_k=mz.Choice(
            "int4/channel", structures=(mz.ConstantTokens(1),)
        ),
    )
    assert agreement(case) > FLOAT_DB


@pytest.mark.parametrize(
    "name", ["kmeans1/channel", "mixed/kmeans1:3,uint2:2", "mixed/lut2:3,lut3:2"]
)
def test_levels_of_any_value_have_integers_where_there_are_two(name: str):
    fmt = mz.Choice(name).weight_format
    torch.manual_seed(0)
    weight = torch.randn(5, 24)
    weight[0], weight[1] = 0.0, 0.3
    assert fmt is not None
    stored = PackedWeight(fmt, fmt.encode(weight, MINMAX), (5, 24))
    found = integers(stored)
    assert found is not None
    restored = (found.codes.astype(np.float32) - found.zero_point) * found.scale
    expected = stored.dequantized(torch.float32).numpy()
    assert restored[:, 0] == pytest.approx(expected, rel=1e-6)


def test_smoothed_inputs_agree(unet):
    inner = (mz.Smoothing(),)
    case = packed_case(
        unet,
        mz.Choice("int4/channel", structures=inner),
        up_blocks__1__resnets__0__conv_shortcut=mz.Choice(
            "int4/channel", structures=(mz.SplitInput(32), *inner)
        ),
        down_blocks__1__attentions__0__transformer_blocks__0__attn2__to_k=mz.Choice(
            "int4/channel", structures=(mz.ConstantTokens(1), *inner)
        ),
    )
    assert agreement(case) > FLOAT_DB


def test_inputs_that_a_norm_smooths_agree(unet):
    block = "down_blocks__1__attentions__0__transformer_blocks__0"
    norm = mz.NormSmoothing(f"{block.replace('__', '.')}.norm1")
    smoothed = mz.Choice("int4/channel", "uint8/tensor", (norm,))
    readers = {f"{block}__attn1__to_{each}": smoothed for each in "qkv"}
    case = packed_case(unet, mz.Choice("int4/channel", "uint8/tensor"), **readers)
    denoiser = compiled(case)
    assert decibels(case.expected, case.call.run(denoiser)) > ROUNDED_DB
    assert {row.arithmetic for row in engine_executions(denoiser)} == {"int8"}


def test_smoothed_static_inputs_become_8_bit_products(unet):
    case = packed_case(unet, mz.Choice("int4/channel", "uint8/tensor", (mz.Smoothing(),)))
    denoiser = compiled(case)
    assert decibels(case.expected, case.call.run(denoiser)) > ROUNDED_DB
    assert {row.arithmetic for row in engine_executions(denoiser)} == {"int8"}


def test_convolutions_in_groups_agree():
    pipe = float_case_of_grouped_convolution()
    choice = mz.Choice("int4/channel", "uint8/tensor")
    assert agreement(packed_case(pipe, choice)) > ROUNDED_DB


def float_case_of_grouped_convolution() -> Case:
    pipe = tiny.tiny_stable_diffusion()
    torch.manual_seed(0)
    old = pipe.unet.down_blocks[0].resnets[0].conv1
    pipe.unet.down_blocks[0].resnets[0].conv1 = torch.nn.Conv2d(
        old.in_channels, old.out_channels, 3, padding="same", groups=4
    )
    return float_case(pipe)


def test_symmetric_four_bit_weights_with_static_inputs_become_8_bit_products(packed, fast):
    packed.call.run(fast.unet)
    rows = engine_executions(fast.unet)
    assert {row.arithmetic for row in rows} == {"int8"}
    assert all("i8" in row.kernel.lower() for row in rows)
    assert all(row.reason is None for row in rows)


def test_what_stays_floating_says_why(unet):
    choices = [
        mz.Choice("int4/channel"),
        mz.Choice("int4/channel", "int8/token"),
        mz.Choice("uint4/channel", "uint8/tensor"),
        mz.Choice("int4/group16", "uint8/tensor"),
        mz.Choice("kmeans4/channel", "uint8/tensor"),
    ]
    case = packed_case(unet, *choices)
    denoiser = compiled(case)
    case.call.run(denoiser)
    rows = engine_executions(denoiser)
    assert {row.arithmetic for row in rows} == {"float"}
    reasons = {str(row.choice): row.reason for row in rows}
    assert "leaves the input floating" in reasons["int4/channel × float"]
    assert "not calibrated" in reasons["int4/channel × int8/token"]
    assert "symmetric weights only" in reasons["uint4/channel × uint8/tensor"]
    assert "one scale per output channel" in reasons["int4/group16 × uint8/tensor"]
    assert "no integers" in reasons["kmeans4/channel × uint8/tensor"]


def test_each_half_is_told_by_its_own_arithmetic(unet):
    halves = mz.Choice(
        "int4/channel", "uint8/tensor", (mz.SplitInput(32),), (("second", "kmeans4/channel"),)
    )
    case = packed_case(unet, mz.Choice(), up_blocks__1__resnets__0__conv_shortcut=halves)
    denoiser = compiled(case)
    assert decibels(case.expected, case.call.run(denoiser)) > ROUNDED_DB
    (row,) = engine_executions(denoiser)
    assert set(row.arithmetic.split(", ")) == {"int8", "float"}
    assert "float, inputs rounded to uint8/tensor" in row.products
    assert "no integers" in row.reason


def test_inputs_that_stay_floating_are_not_told_to_be_rounded(unet):
    case = packed_case(unet, mz.Choice("int4/channel", "uint8/token"))
    denoiser = compiled(case)
    case.call.run(denoiser)
    assert {row.products for row in engine_executions(denoiser)} == {"float"}


def test_eight_bit_weights_become_8_bit_products_only_where_those_do_not_saturate(unet):
    case = packed_case(unet, mz.Choice("int8/channel", "uint8/tensor"))
    denoiser = compiled(case)
    output = case.call.run(denoiser)
    assert decibels(case.expected, output) > ROUNDED_DB
    vnni = torch.cpu._is_vnni_supported()
    rows = engine_executions(denoiser)
    assert {row.arithmetic for row in rows} == {"int8" if vnni else "float"}
    assert all(("saturate" in str(row.reason)) != vnni for row in rows)


def test_packed_weights_of_products_with_single_pixels_stay_packed(unet):
    case = packed_case(unet, mz.Choice("uint4/group16"))
    denoiser = compiled(case)
    assert decibels(case.expected, case.call.run(denoiser)) > FLOAT_DB
    convolutions = {
        name for name, layer in case.denoiser.named_modules() if isinstance(layer, torch.nn.Conv2d)
    }
    as_matrices = {
        row.layer
        for row in engine_executions(denoiser)
        if row.layer in convolutions and "conv" not in row.kernel
    }
    assert as_matrices == {
        name for name in convolutions if case.denoiser.get_submodule(name).kernel_size == (1, 1)
    }
    assert as_matrices


def test_attention_is_left_to_openvino_as_one_operation(packed):
    arguments = bind(packed.denoiser, packed.call.args, packed.call.kwargs)
    model, _ = converted(packed.denoiser, arguments)
    kinds = [operation.get_type_name() for operation in model.get_ops()]
    processors = packed.denoiser.attn_processors
    assert kinds.count("ScaledDotProductAttention") == len(processors)
    assert "Softmax" not in kinds


def test_executions_are_unknown_before_the_first_call(packed):
    with pytest.raises(mz.MezzotintError, match="call the denoiser once"):
        engine_executions(compiled(packed))


def test_other_batches_and_sizes_are_compiled_when_they_come(unet):
    denoiser = compiled(unet)
    for batch, side in ((1, 8), (3, 8), (2, 16)):
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(batch, 4, side, side, generator=generator)
        text = torch.randn(batch, 5, 32, generator=generator)
        with torch.no_grad():
            expected = unet.denoiser(latents, 400, text).sample
        assert decibels(expected, denoiser(latents, 400, text).sample) > FLOAT_DB
    assert len(denoiser.compilations) == 2, "the oldest makes room"


def test_one_compiled_model_serves_all_timesteps_and_output_types(unet):
    denoiser = compiled(unet)
    latents, text = torch.randn(1, 4, 8, 8), torch.randn(1, 5, 32)
    (other,) = denoiser(latents, 999, text, return_dict=False)
    named = denoiser(latents, 7, text)
    (plain,) = denoiser(latents, 7, encoder_hidden_states=text, return_dict=False)
    assert len(denoiser.compilations) == 1
    assert not torch.equal(other, plain)
    with torch.no_grad():
        assert type(named) is type(unet.denoiser(latents, 7, text))
    assert torch.equal(named.sample, plain)


def test_a_bfloat16_pipeline_stays_one(packed):
    case = Case(packed.pipe, packed.call.to(dtype=torch.bfloat16), packed.expected)
    denoiser = copy.deepcopy(compiled(case))
    torch.nn.Module.to(denoiser, torch.bfloat16)
    output = case.call.run(denoiser)
    assert output.dtype == denoiser.dtype == torch.bfloat16
    assert decibels(case.expected, output.float()) > 10


def test_the_pipeline_makes_images_and_looks_like_the_original(packed, fast):
    images = generate(fast, mz.Sampling(PROMPTS.prompts, steps=2))
    assert images.shape == (2, 16, 16, 3)
    denoiser = fast.unet
    assert isinstance(denoiser, type(packed.denoiser))
    assert type(denoiser).__name__ == "UNet2DConditionModel"
    assert denoiser.config == packed.denoiser.config
    assert (denoiser.dtype, denoiser.device.type) == (torch.float32, "cpu")
    assert type(packed.pipe.unet) is not type(denoiser), "the original is left alone"


def test_a_compiled_pipeline_is_saved_as_the_packed_one(packed, fast, tmp_path):
    folder = mz.Result(fast, packed.denoiser.hf_quantizer.plan).save(tmp_path / "saved")
    restored = mz.load(folder)
    assert type(restored.unet) is type(packed.pipe.unet)
    with torch.no_grad():
        assert torch.equal(packed.call.run(restored.unet), packed.expected)


def test_embedded_models_agree():
    for name, choices in {
        "emoji-turbo": [mz.Choice("int4/channel", "uint8/tensor")],
        "emoji-dit": [mz.Choice("int8/channel", "uint8/tensor"), mz.Choice("int4/channel")],
    }.items():
        found = agreement(packed_case(float_case(mz.load(name)), *choices))
        assert found > ROUNDED_DB, name
