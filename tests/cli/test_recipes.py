import json

import pytest

import mezzotint as mz
from mezzotint.checkpoint import read_plan
from mezzotint.cli._recipe_command import recipe_options
from mezzotint.errors import UsageError


def test_recipes_are_listed(run):
    rows = json.loads(run("recipes", "--json").stdout)
    assert {"auto", "mixdq"} <= {row["name"] for row in rows}
    assert all(row["summary"] for row in rows)


def test_the_options_of_a_recipe_are_listed_with_default_and_meaning(run):
    rows = {row["name"]: row for row in json.loads(run("recipes", "mixdq", "--json").stdout)}
    assert rows["bos"]["flag"] == "--bos"
    assert rows["bos"]["default"] == "true"
    assert rows["content_weight_bits"]["default"] == "2,4,8"
    assert all(row["text"] for row in rows.values())


def test_an_unknown_recipe_is_refused(fails):
    assert "unknown recipe 'none'" in fails("recipes", "none")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {}),
        (["--split", "joint"], {"split": "joint"}),
        (["--split=joint"], {"split": "joint"}),
        (["--symmetric"], {"symmetric": "true"}),
        (["--no-bos", "--split", "none"], {"bos": "false", "split": "none"}),
        (["--weight-format", "a=b"], {"weight_format": "a=b"}),
    ],
    ids=" ".join,
)
def test_options_of_a_recipe_as_arguments(arguments: list[str], expected: dict[str, str]):
    assert recipe_options(arguments) == expected


@pytest.mark.parametrize("arguments", [["joint"], ["--bos", "--no-bos"]], ids=" ".join)
def test_arguments_that_make_no_sense_are_refused(arguments: list[str]):
    with pytest.raises(UsageError):
        recipe_options(arguments)


def test_options_reach_mixdq(run, model, tmp_path):
    switches = ["--recipe", "mixdq", "--weight-bits", 6, "--metric", "sqnr", "--no-bos"]
    run("quantize", model, "-o", tmp_path / "out", *switches, "--protect", 0.0)
    context = read_plan(tmp_path / "out").context
    assert context["recipe"] == "mixdq"
    assert context["options"]["metric"] == "sqnr"
    assert context["options"]["bos"] is False
    assert len(context["sampling"]["prompts"]) == 32


def test_what_stays_floating_and_what_was_left_out_is_said(run, model, tmp_path):
    switches = ["--recipe", "mixdq", "--weight-bits", 8.5, "--metric", "sqnr"]
    shown = run("quantize", model, "-o", tmp_path / "out", *switches).stdout
    assert "Left floating" in shown
    assert "input stays floating" in " ".join(shown.split())
    assert "note: no constant first token: no layer reads the text" in shown


def test_the_structure_of_packed_layers_is_shown(run, model, tmp_path):
    plan = mz.uniform_plan(mz.load(model).unet, weight_bits=4, act_bits=8).to_dict()
    plan["layers"]["conv_in"]["structures"] = [{"kind": "split", "first": 2}]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    run("quantize", model, "-o", tmp_path / "out", "--plan", tmp_path / "plan.json")
    assert "split at 2" in " ".join(run("inspect", tmp_path / "out").stdout.split())


def test_a_misspelt_option_names_those_there_are(fails, model, tmp_path):
    message = fails("quantize", model, "-o", tmp_path / "out", "--weigth-bits", 4)
    assert "--weigth-bits: recipe 'auto' has no such option" in message
    assert list(tmp_path.iterdir()) == []


def test_options_before_the_model_are_not_taken_for_it(fails, model, tmp_path):
    message = fails("quantize", "--recipe", "mixdq", "--no-bos", model, "-o", tmp_path / "out")
    assert message.startswith("--no-bos: stands where MODEL should")


def test_recipe_options_do_not_go_with_a_plan(fails, model, tmp_path, uniform):
    uniform.save(tmp_path / "plan.json")
    message = fails("quantize", model, "-o", tmp_path / "out", "--plan", tmp_path / "plan.json",
                    "--split", "joint")  # fmt: skip
    assert "--plan" in message
