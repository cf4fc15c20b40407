"""Options of loading and of the pipeline's call, which every verb that needs them has."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import load_file

import mezzotint as mz
from benchmarks.original_layout import write_original
from mezzotint.checkpoint import read_plan
from mezzotint.cli import app
from mezzotint.cli._option_groups import Calling, Loading
from mezzotint.errors import UsageError
from tests.cli.conftest import BRIEF
from tests.models import tiny
from tests.models.random_lora import save_random_lora

FILES = {"--revision", "--variant", "--token"}
LOADING = FILES | {"--device", "--dtype", "--config", "--lora"}
CALLING = {"--steps", "--guidance", "--height", "--width", "--call"}
SEARCHING = {"--component", "--pin", "--exclude", "--executor", "--address", "--workers"}
SEARCHING |= {"--resume", "--measurements", "--dry-run"}
LOADS = (
    "bench",
    "evaluate",
    "generate",
    "graph",
    "inspect",
    "profile",
    "quantize",
    "sample",
    "sweep",
)
CALLS = ("bench", "evaluate", "generate", "profile", "quantize", "sample", "sweep")


def options(verb: str) -> set[str]:
    command = typer.main.get_command(app).commands[verb]
    return {name for each in command.params for name in each.opts}


@pytest.mark.parametrize("verb", [*LOADS, "tune"])
def test_verbs_that_load_a_model_have_all_options_for_it(verb):
    assert options(verb) >= LOADING


def test_packing_from_disk_to_disk_has_those_of_files():
    assert options("pack") >= FILES | {"--dtype"}
    assert not options("pack") & (LOADING - FILES - {"--dtype"})


@pytest.mark.parametrize("verb", CALLS)
def test_verbs_that_run_a_model_have_all_options_for_it(verb):
    assert options(verb) >= CALLING


@pytest.mark.parametrize("verb", ["quantize", "sweep"])
def test_verbs_that_search_for_plans_have_all_options_for_it(verb):
    assert options(verb) >= SEARCHING


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny Stable Diffusion in one file of float16, and the folder of its configuration."""
    folder = tmp_path_factory.mktemp("single") / "configuration"
    pipe = tiny.tiny_stable_diffusion()
    pipe.save_pretrained(folder)
    tiny.write_generation(folder, num_inference_steps=1, guidance_scale=1.0)
    write_original(pipe, folder.with_name("tiny.safetensors"), torch.float16)
    for path in folder.glob("*/*.safetensors"):
        path.unlink()
    return folder.with_name("tiny.safetensors"), folder


def test_a_single_file_is_quantized_in_its_own_dtype(run, single, tmp_path):
    file, config = single
    plan = tmp_path / "plan.json"
    mz.uniform_plan(tiny.tiny_unet(), weight_bits=4).save(plan)
    found = run("quantize", file, "-o", tmp_path / "out", "--config", config, "--plan", plan)
    assert found.exit_code == 0, found.stderr
    stored = load_file(tmp_path / "out" / "vae" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert run("generate", tmp_path / "out", "owl", "-o", tmp_path / "drawn").exit_code == 0


def test_a_lora_is_merged_first(run, tmp_path):
    source = tiny.save_few_step(tmp_path / "tiny", tiny.smallest_unet())
    lora = save_random_lora(source, tmp_path / "style.safetensors")
    mz.uniform_plan(tiny.smallest_unet(), weight_bits=8).save(tmp_path / "plan.json")
    command = ("quantize", source, "-o", tmp_path / "out", "--plan", tmp_path / "plan.json")
    found = run(*command, "--lora", f"{lora}:0.5", "--lora", lora)
    assert "merged: style.safetensors, weight 0.5\nmerged: style.safetensors, weight 1" in (
        found.stdout
    )
    named = read_plan(tmp_path / "out").context["loras"]
    assert [each["weight"] for each in named] == [0.5, 1.0]


def test_a_pickle_is_refused_by_name(fails, tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"")
    message = fails("quantize", tmp_path / "model.ckpt", "-o", tmp_path / "out")
    assert "is a pickle" in message
    assert "convert it to .safetensors" in message


def test_arguments_of_the_call_reach_the_calibration(run, model, tmp_path):
    asked = ("--steps", 2, "--guidance", 3.5, "--act-bits", 16)
    run("quantize", model, "-o", tmp_path / "out", *BRIEF, *asked)
    sampling = read_plan(tmp_path / "out").context["sampling"]
    assert (sampling["steps"], sampling["guidance"]) == (2, 3.5)


def test_a_plans_own_sampling_is_changed_by_them(run, model, tmp_path):
    plan = mz.Plan({"conv_in": mz.Choice("int8/channel", "uint8/tensor")})
    plan.save(tmp_path / "plan.json")
    command = ("quantize", model, "-o", tmp_path / "out", "--plan", tmp_path / "plan.json")
    run(*command, "--steps", 2)
    assert read_plan(tmp_path / "out").calibration.sampling.steps == 2


def test_height_and_width_are_those_of_the_pictures(run, model, tmp_path):
    sizes = ("--height", 32, "--width", 16)
    assert run("generate", model, "owl", "-o", tmp_path, *sizes).exit_code == 0
    with Image.open(tmp_path / "000-owl.png") as image:
        assert image.size == (16, 32)


def test_a_dtype_is_that_of_what_stays_floating(run, model, tmp_path, uniform):
    uniform.save(tmp_path / "plan.json")
    command = ("quantize", model, "-o", tmp_path / "out", "--plan", tmp_path / "plan.json")
    assert run(*command, "--dtype", "bfloat16").exit_code == 0
    assert mz.load(tmp_path / "out").vae.dtype == torch.bfloat16


def test_a_size_is_given_once(fails, model, tmp_path):
    sizes = ("--height", 32, "--call", "height=16")
    message = fails("generate", model, "owl", "-o", tmp_path / "out", *sizes)
    assert message == "--height: is given by --call as well; leave one out"


def test_an_unknown_dtype_is_refused(fails, model, tmp_path):
    message = fails("generate", model, "owl", "-o", tmp_path / "out", "--dtype", "int8")
    assert message == "--dtype: is 'int8'; give one of: float32, bfloat16, float16"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--revision", "main"], "revision: "),
        (["--token", "hf_secret"], "token: "),
        (["--config", "."], "config: "),
        (["--lora", "none.safetensors"], "none.safetensors: is no .safetensors file"),
    ],
    ids=["revision", "token", "config", "lora"],
)
def test_what_the_model_has_no_use_for_is_refused(fails, model, tmp_path, options, why):
    message = fails("generate", model, "owl", "-o", tmp_path / "out", *options)
    assert message.startswith(why)
    assert "hf_secret" not in message


def test_a_quantized_result_has_files_of_its_own():
    kept = Loading(device="cuda", dtype="bfloat16")
    own = {"revision": "v1", "variant": "fp16", "token": "hf_x"}
    asked = replace(kept, **own, config=Path("dir"), lora=["a.safetensors"])
    assert asked.of_quantized() == kept


def test_without_arguments_a_sampling_stays_as_it_is():
    sampling = mz.Sampling(("owl",), steps=3, guidance=2.0)
    assert Calling().on(sampling) == sampling
    assert not Calling().given
    assert Calling(guidance=1.0).on(sampling) == mz.Sampling(("owl",), steps=3, guidance=1.0)
    with pytest.raises(UsageError, match="guidance: -1"):
        Calling(guidance=-1.0).on(sampling)


def test_evaluation_runs_both_with_them(run, model, quantized, tmp_path):
    file = tmp_path / "figures.json"
    command = ("evaluate", quantized, "--reference", model, "-n", 1, "--json", file)
    assert run(*command, "--steps", 3, "--guidance", 2).exit_code == 0
    assert json.loads(file.read_text())["context"]["steps"] == 3
