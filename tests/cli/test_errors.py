"""Every error a user can cause: one line, exit code 2, nothing half-written."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def broken(model, tmp_path):
    """A copy of the model to damage."""
    return shutil.copytree(model, tmp_path / "input" / "broken")


@pytest.fixture
def output(tmp_path):
    """Target of a result; the folder around it must stay empty."""
    (tmp_path / "work").mkdir()
    output = tmp_path / "work" / "out"
    yield output
    assert list(output.parent.iterdir()) == []


def write_plan(path, plan):
    path.write_text(json.dumps(plan))
    return path


def test_a_missing_folder_is_named(fails, output):
    assert "nowhere" in fails("quantize", "nowhere", "-o", output)


def test_a_misspelt_model_gets_a_suggestion(fails, output):
    assert "emoji-turbo" in fails("quantize", "emoji-turbi", "-o", output)


def test_truncated_weights_are_named(fails, broken, output):
    data = (broken / WEIGHTS).read_bytes()
    (broken / WEIGHTS).write_bytes(data[: len(data) // 2])
    assert WEIGHTS in fails("quantize", broken, "-o", output)


def test_nan_weights_name_the_layer(fails, broken, output):
    tensors = load_file(broken / WEIGHTS)
    tensors["conv_out.weight"][0, 0, 0, 0] = torch.nan
    save_file(tensors, broken / WEIGHTS, metadata={"format": "pt"})
    assert "conv_out" in fails("quantize", broken, "-o", output)


def test_inputs_that_are_no_numbers_name_layer_and_call(fails, broken, output):
    tensors = load_file(broken / WEIGHTS)
    tensors["conv_in.weight"] *= 1e38  # whose products are no numbers any more
    save_file(tensors, broken / WEIGHTS, metadata={"format": "pt"})
    message = fails("quantize", broken, "-o", output)
    found = r"layer \S+: its input holds NaN or infinite values \(call 1 of \d+\)"
    assert re.search(found, message)


@pytest.mark.parametrize("name", ["int9/channel", "lut7/channel", "int4/group0"])
def test_formats_out_of_range_are_named(fails, model, output, name):
    assert name in fails("quantize", model, "-o", output, "--formats", name)


@pytest.mark.parametrize(
    ("options", "nearest"),
    [(["--weight-bits", 0.5], "bits per weight"), (["--size", "1KB"], "bytes")],
    ids=["bits", "bytes"],
)
def test_an_infeasible_budget_names_the_nearest(fails, model, output, options, nearest):
    assert nearest in fails("quantize", model, "-o", output, *options)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--weight-bits", 40], "weight_bits"),
        (["--size", "six"], "size"),
        (["--act-bits", 12], "act_bits"),
        (["--recipe", "magic"], "magic"),
        (["--seed", -1], "seed"),
        (["--prompts", "nowhere.txt"], "nowhere.txt"),
        (["--device", "toaster"], "toaster"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_options_are_named(fails, model, output, options, word):
    assert word in fails("quantize", model, "-o", output, *options)


def test_an_empty_prompt_file_is_named(fails, model, output, tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    message = fails("quantize", model, "-o", output, "--prompts", tmp_path / "empty.txt")
    assert "empty.txt" in message


@pytest.mark.parametrize(
    ("layers", "word"),
    [
        ({"up_blocks.9.conv": {"weight": "int4/channel"}}, "up_blocks.9.conv"),
        ({"conv_norm_out": {"weight": "int4/channel"}}, "conv_norm_out is a GroupNorm"),
        ({"conv_in": {"weight": "int77/channel"}}, "conv_in"),
        ({"conv_in": {"bits": 4}}, "conv_in"),
    ],
    ids=["unknown layer", "unsupported layer", "unknown format", "unknown field"],
)
def test_a_wrong_plan_names_the_layer(fails, model, output, tmp_path, layers, word):
    plan = write_plan(tmp_path / "plan.json", {"version": 1, "layers": layers})
    assert word in fails("quantize", model, "-o", output, "--plan", plan)


def test_a_plan_and_a_budget_exclude_each_other(fails, model, quantized, output):
    options = ["--plan", quantized, "--weight-bits", 3]
    assert "--weight-bits" in fails("quantize", model, "-o", output, *options)


def test_a_quantized_model_is_not_quantized_again(fails, quantized, output):
    assert "quantized already" in fails("quantize", quantized, "-o", output)


def test_an_existing_folder_is_kept(fails, model, tmp_path):
    (tmp_path / "precious.txt").write_text("")
    assert "--force" in fails("quantize", model, "-o", tmp_path)
    assert (tmp_path / "precious.txt").exists()


@pytest.mark.parametrize("verb", ["quantize", "pack"])
def test_what_is_at_home_is_not_replaced(fails, model, tmp_path, monkeypatch, verb):
    """Shells leave the ~ of --output=~/name as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(model, tmp_path / "mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert f"{tmp_path / 'mine'}: exists already" in fails(verb, model, "--output=~/mine")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("verb", ["quantize", "pack"])
def test_nobodys_home(fails, model, output, verb):
    assert "nobody knows" in fails(verb, "~nobody-here/model", "-o", output)
    assert "nobody knows" in fails(verb, model, "-o", "~nobody-here/out")


@pytest.mark.parametrize("verb", ["quantize", "pack"])
@pytest.mark.parametrize("name", [".", "", "../work", ".."])
def test_the_working_folder_is_not_replaced(fails, model, output, monkeypatch, verb, name):
    monkeypatch.chdir(output.parent)
    assert "the working folder would be replaced" in fails(verb, model, "-o", name, "--force")


def test_force_replaces_nothing_but_pipelines(fails, model, tmp_path):
    (tmp_path / "precious.txt").write_text("")
    assert "something else than a pipeline" in fails("quantize", model, "-o", tmp_path, "--force")
    assert (tmp_path / "precious.txt").exists()


def test_a_foreign_journal_is_kept(fails, model, tmp_path):
    journal = tmp_path / "out.journal.jsonl"
    journal.write_text('{"header": {"fingerprint": "of another model"}}\n')
    assert "journal" in fails("quantize", model, "-o", tmp_path / "out", "--resume")
    assert journal.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["show", "diff"])
def test_a_folder_without_a_plan_is_named(fails, model, verb):
    paths = [model] * (2 if verb == "diff" else 1)
    assert "quantized" in fails("plan", verb, *paths)


def test_generating_needs_a_prompt(fails, model, output):
    assert "prompts" in fails("generate", model, "-o", output)


def test_generating_needs_a_step(fails, model, output):
    assert "steps" in fails("generate", model, "owl", "-o", output, "--steps", 0)


def test_generating_takes_no_more_steps_than_there_are(fails, model, output):
    message = fails("generate", model, "owl", "-o", output, "--steps", 5000)
    assert message.startswith("steps: 5,000 are more than the 1,000 timesteps")


def test_pictures_do_not_replace_a_file(fails, model, tmp_path):
    (tmp_path / "file").write_text("")
    assert "is a file" in fails("generate", model, "owl", "-o", tmp_path / "file")


def test_a_folder_that_cannot_be_made_is_named(fails, model, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file" in fails("generate", model, "owl", "-o", tmp_path / "file" / "deeper")


@pytest.mark.parametrize("verb", ["quantize", "pack"])
@pytest.mark.parametrize("place", ["tiny", "tiny/packed", "."], ids=["same", "inside", "around"])
def test_force_does_not_replace_the_model_itself(fails, model, tmp_path, verb, place):
    folder = shutil.copytree(model, tmp_path / "tiny")
    shutil.copyfile(model / "model_index.json", tmp_path / "model_index.json")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    message = fails(verb, folder, "-o", tmp_path / place, "--force")
    assert "holds the source, or lies within it; name a folder elsewhere" in message
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_profile_does_not_replace_a_file_of_the_model(fails, model):
    output = model / "model_index.json"
    before = output.read_bytes()
    assert "holds the source, or lies within it" in fails("profile", model, "-o", output)
    assert output.read_bytes() == before


@pytest.mark.parametrize("verb", ["evaluate", "bench"])
def test_comparing_needs_both_pipelines(fails, quantized, verb):
    assert "nowhere" in fails(verb, quantized, "--reference", "nowhere")


def test_a_negative_number_of_images_exits_with_2(run, model, quantized):
    assert run("evaluate", quantized, "--reference", model, "-n", -1).exit_code == 2


def test_a_misspelt_verb_exits_with_2(run):
    result = run("quantise")
    assert result.exit_code == 2
    assert "quantize" in result.stderr
