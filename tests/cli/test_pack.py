import json
import shutil
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

import mezzotint as mz
from mezzotint.checkpoint import read_plan
from mezzotint.plan import SimulatedAttention
from mezzotint.runtime import module_bytes


def test_options_reach_the_packing(run, model, tmp_path):
    output = tmp_path / "out"
    options = ["--weight-bits", 4, "--act-bits", 8, "--exclude", "conv_in", "--exclude", "conv_out"]
    options += ["--dtype", "float16", "--shard-size", "4KB", "--json"]
    summary = json.loads(run("pack", model, "-o", output, *options).stdout)
    assert summary["output"] == str(output)
    assert summary["left_out"] == []
    assert summary["plan"] == read_plan(output).to_dict()
    unet = mz.load(model, dtype=torch.float16).unet
    expected = mz.uniform_plan(
        unet, weight_bits=4, act_bits=8, exclude=("conv_in", "conv_out"), model=model.name
    )
    assert read_plan(output) == expected
    mz.quantize_denoiser(unet, weight_bits=4, act_bits=8, exclude=("conv_in", "conv_out"))
    assert summary["denoiser_bytes"] == module_bytes(unet)
    assert len(list((output / "unet").glob("*.safetensors"))) > 1


def test_a_plan_is_followed_and_a_summary_printed(run, model, tmp_path, uniform):
    uniform.save(tmp_path / "plan.json")
    output = tmp_path / "out"
    shown = run("pack", model, "-o", output, "--plan", tmp_path / "plan.json").stdout
    assert "int8/channel" in shown
    assert f"saved to {output}; the denoiser takes" in shown
    assert read_plan(output) == uniform


def test_force_replaces_a_pipeline(run, fails, model, tmp_path):
    command = ["pack", model, "-o", tmp_path / "out", "--weight-bits"]
    run(*command, 8)
    assert "exists already" in fails(*command, 2)
    assert run(*command, 2, "--force").exit_code == 0
    assert read_plan(tmp_path / "out")["conv_in"] == mz.Choice("int2/channel")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--weight-bits", 9], "bits is 9"),
        (["--act-bits", 12], "act_bits"),
        (["--exclude", "conv_inn"], "conv_inn"),
        (["--dtype", "int8"], "--dtype"),
        (["--shard-size", "big"], "big"),
        (["--variant", "fp16"], "of 'fp16'; leave it out (--variant)"),
        (["--revision", "main"], "revision: "),
        (["--token", "hf_secret"], "token: "),
        (["--plan", "nowhere.json"], "nowhere.json"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_options_are_named(fails, model, tmp_path, options, word):
    assert word in fails("pack", model, "-o", tmp_path / "work" / "out", *options)
    assert not (tmp_path / "work").exists()


def test_attention_that_cannot_be_rounded_is_refused(fails, model, tmp_path, uniform):
    """The model has none, so that every call of what was packed would fail."""
    plan = replace(uniform, simulated_attention=SimulatedAttention(q=8))
    plan.save(tmp_path / "plan.json")
    message = fails("pack", model, "-o", tmp_path / "out", "--plan", tmp_path / "plan.json")
    assert "calls no scaled_dot_product_attention" in message
    assert [each.name for each in tmp_path.iterdir()] == ["plan.json"]


def test_files_of_a_variant_are_taken(run, model, tmp_path):
    source = shutil.copytree(model, tmp_path / "source")
    UNet2DConditionModel.from_pretrained(source / "unet").half().save_pretrained(
        source / "unet", variant="fp16"
    )
    options = ("--variant", "fp16", "--exclude", "conv_in")
    assert run("pack", source, "-o", tmp_path / "out", *options).exit_code == 0
    (file,) = (tmp_path / "out" / "unet").glob("*.safetensors")
    assert file.name == "diffusion_pytorch_model.safetensors"
    assert load_file(file)["conv_in.weight"].dtype == torch.float16
