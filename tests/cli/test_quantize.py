import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import mezzotint as mz
from mezzotint._journal import Record
from mezzotint._progress import announcer
from mezzotint.checkpoint import read_plan
from mezzotint.checkpoint.streaming.stored_tensors import StoredTensor
from mezzotint.runtime import module_bytes
from tests import journals
from tests.cli.conftest import BRIEF, TWO_FORMATS
from tests.recipes.watching import watched

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="session")
def journaled(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The journal of a finished run under `TWO_FORMATS`."""
    journal = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    recipe = mz.Auto(formats=("int3/channel", "int8/channel"), calls=1)
    mz.quantize(mz.load(model), recipe, journal=journal)
    return journal


def test_the_default_budget_is_four_bits(run, model, tmp_path):
    output = tmp_path / "out"
    summary = json.loads(run("quantize", model, "-o", output, *BRIEF, "--json").stdout)
    assert summary["output"] == str(output)
    assert summary["plan"] == read_plan(output).to_dict()
    assert summary["plan"]["context"]["budget"]["weight_bits"] == 4
    assert summary["denoiser_bytes"] == module_bytes(mz.load(output).unet)
    assert len(summary["execution"]) == len(read_plan(output).quantized)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_options_reach_the_recipe(run, model, tmp_path):
    (tmp_path / "prompts.txt").write_text("red apple\n")
    options = ["--weight-bits", 6, "--size", "1MB", "--act-bits", 16, "--seed", 7]
    options += ["--recipe", "auto", "--prompts", tmp_path / "prompts.txt"]
    run("quantize", model, "-o", tmp_path / "out", *options, *BRIEF)
    context = read_plan(tmp_path / "out").context
    assert context["budget"] == {
        "weight_bits": 6.0,
        "size": "1MB",
        "act_bits": 16,
        "latency": None,
        "pipeline_size": None,
    }
    assert context["sampling"]["prompts"] == ["red apple"]
    assert context["sampling"]["seed"] == 7
    assert {choice.activation for choice in read_plan(tmp_path / "out").choices.values()} == {
        "float"
    }


def test_how_long_it_takes_is_said_on_standard_error(run, model, tmp_path):
    found = run("quantize", model, "-o", tmp_path / "out", *BRIEF)
    expected, overall, later, first = found.stderr.splitlines()[:4]
    assert expected.startswith("expected: on this machine a result of int4/channel × int8/token ")
    assert overall.startswith("In all about ")
    assert later.startswith("Then at the most ")
    assert first.startswith("Probing: ")


def test_a_dry_run_says_it_and_stops(run, model, tmp_path):
    found = run("quantize", model, "-o", tmp_path / "out", "--calls", 1, "--dry-run")
    first, later = found.stdout.splitlines()
    assert re.fullmatch(
        r"In all about [\w ]+: recording [\w ]+, .*, timing the result [\w ]+", first
    )
    # Doubled twice, and so for exchanges; 48 contested formats, and the plan with exchanges.
    assert later.startswith("Then at the most 384 more probes and 49 measurements on 1 calls and ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--exclude", "--pin"])
def test_a_dry_run_refuses_a_pattern_that_names_no_layer(fails, model, tmp_path, option):
    pattern = "nope=int8/channel" if option == "--pin" else "nope"
    command = ["quantize", model, "-o", tmp_path / "out", "--calls", 1, "--dry-run"]
    assert f"{option[2:]} '{pattern}'" in fails(*command, option, pattern)


def test_a_dry_run_counts_what_an_interrupted_run_left_to_do(run, model, tmp_path, journaled):
    journal = tmp_path / "out.journal.jsonl"
    lines = journaled.read_text("utf-8").splitlines(keepends=True)
    journal.write_text("".join(lines[:-2]), "utf-8")
    options = ["quantize", model, "-o", tmp_path / "out", *TWO_FORMATS, "--resume", "--dry-run"]
    assert "nothing is left" not in run(*options).stdout
    journal.write_text("".join(lines), "utf-8")
    overall, last = run(*options).stdout.splitlines()[::2]
    assert ", less what was measured before: " in overall
    assert last == "nothing is left to measure"
    assert [path.name for path in tmp_path.iterdir()] == [journal.name]


def test_a_summary_is_printed(run, model, tmp_path, uniform):
    uniform.save(tmp_path / "plan.json")
    shown = run("quantize", model, "-o", tmp_path / "out", "--plan", tmp_path / "plan.json").stdout
    assert "int8/channel" in shown
    assert "saved to" in shown
    assert "cpu-int8" in shown


def test_an_edited_plan_is_followed(run, model, tmp_path, uniform):
    edited = uniform.to_dict()
    edited["layers"]["conv_in"] = {"weight": "float", "reason": "by hand"}
    (tmp_path / "plan.json").write_text(json.dumps(edited))
    run("quantize", model, "-o", tmp_path / "out", "--plan", tmp_path / "plan.json")
    assert read_plan(tmp_path / "out").to_dict() == edited | {
        "layers": edited["layers"]
        | {"conv_in": {"weight": "float", "activation": "float", "reason": "by hand"}}
    }


def test_weights_may_stay_on_disk(run, model, tmp_path, monkeypatch):
    read, seen = StoredTensor.read, []
    monkeypatch.setattr(StoredTensor, "read", lambda each: seen.append(each.key) or read(each))
    options = ["--weight-bits", 6, "--sensitivity", "probes", "--probes", 4, "--regret", 9]
    options += ["--formats", "int4/channel", "--no-exchanges", "--no-smoothing", "--calls", 1]
    assert run("quantize", model, "-o", tmp_path / "loaded", *options).exit_code == 0
    assert not seen
    streamed = run("quantize", model, "-o", tmp_path / "streamed", *options, "--stream")
    assert streamed.exit_code == 0, streamed.stderr
    assert seen.count("conv_in.weight") > 4
    one, other = (tmp_path / name / WEIGHTS for name in ("loaded", "streamed"))
    assert one.read_bytes() == other.read_bytes()


def test_what_a_plan_needs_calibrated_is_calibrated_on_the_prompts(run, model, tmp_path):
    plan = mz.Plan({"conv_in": mz.Choice("int8/channel", "uint8/tensor")})
    plan.save(tmp_path / "plan.json")
    (tmp_path / "prompts.txt").write_text("red apple\n")
    options = ["--plan", tmp_path / "plan.json", "--prompts", tmp_path / "prompts.txt"]
    run("quantize", model, "-o", tmp_path / "out", *options)
    expected = mz.apply(mz.load(model), plan, sampling=mz.Sampling(("red apple",)))
    scale = expected.denoiser.conv_in.get_buffer("input_scale")
    assert torch.equal(mz.load(tmp_path / "out").unet.conv_in.get_buffer("input_scale"), scale)


def test_resume_takes_finished_measurements_from_the_journal(run, model, tmp_path, journaled):
    journal = Path(shutil.copy(journaled, tmp_path / "out.journal.jsonl"))
    changed = []

    def noisy(_, entries):
        changed.extend(unit for unit, result in entries if result.keys() == {"noise"})
        return [(u, {"noise": 123.0} if u == changed[0] else result) for u, result in entries]

    journals.edit(journal, noisy)
    run("quantize", model, "-o", tmp_path / "out", *TWO_FORMATS, "--resume")
    kept = Record.read(tmp_path / "out" / "measurements.jsonl")
    assert kept.entries[changed[0]] == {"noise": 123.0}
    assert not journal.exists()


def test_without_resume_measuring_starts_afresh(run, model, tmp_path):
    journal = tmp_path / "out.journal.jsonl"
    journal.write_text('{"header": "of another run"}\n')
    assert run("quantize", model, "-o", tmp_path / "out", *BRIEF).exit_code == 0
    assert not journal.exists()


def test_force_replaces_a_pipeline(run, model, quantized, tmp_path, uniform):
    uniform.save(tmp_path / "plan.json")
    command = ["quantize", model, "-o", tmp_path / "out", "--plan", tmp_path / "plan.json"]
    run(*command)
    before = (tmp_path / "out" / "model_index.json").stat().st_ino
    assert run(*command, "--force").exit_code == 0
    assert (tmp_path / "out" / "model_index.json").stat().st_ino != before


def test_another_budget_takes_over_what_an_earlier_run_measured(run, model, tmp_path, monkeypatch):
    enough = (*TWO_FORMATS, "--probes", 16, "--regret", 1e9, "--bias-correction", "never")
    run("quantize", model, "-o", tmp_path / "w4", *enough)
    asked = watched(monkeypatch)
    command = ["quantize", model, "-o", tmp_path / "w5", "--weight-bits", 5, *enough]
    assert run(*command, "--measurements", tmp_path / "w4").exit_code == 0
    kept = [Record.read(tmp_path / name / "measurements.jsonl") for name in ("w4", "w5")]
    new = kept[1].entries.keys() - kept[0].entries.keys()
    assert len([task for task in asked if task.change.layer is None]) in (2, 3)  # plans
    measured = [unit for unit in new if "probe" not in unit]
    assert len(measured) == len(asked)
    # Probes of the floating model are taken over; those around the plan are of another plan, whose
    # changes have an entry for their names.
    assert len(new) - len(measured) == 16 + 1
    assert read_plan(tmp_path / "w5").choices != read_plan(tmp_path / "w4").choices


def test_measurements_of_other_prompts_are_refused(run, fails, model, tmp_path):
    run("quantize", model, "-o", tmp_path / "w4", *BRIEF)
    message = fails(
        *("quantize", model, "-o", tmp_path / "w5", *BRIEF, "--seed", 7),
        *("--measurements", tmp_path / "w4"),
    )
    assert "holds measurements of other prompts, seeds or steps" in message
    assert [path.name for path in tmp_path.iterdir()] == ["w4"]


def test_a_plan_leaves_nothing_to_measure(fails, model, tmp_path, uniform):
    uniform.save(tmp_path / "plan.json")
    message = fails(
        *("quantize", model, "-o", tmp_path / "out", "--plan", tmp_path / "plan.json"),
        *("--measurements", tmp_path),
    )
    assert "--measurements" in message


def test_packing_after_a_plan_announces_its_work(run, model, tmp_path, uniform, monkeypatch):
    announced = []

    def applied(*arguments, **options):
        announced.append(announcer() is not None)
        return mz.apply(*arguments, **options)

    monkeypatch.setattr("mezzotint.pipeline.apply", applied)
    uniform.save(tmp_path / "plan.json")
    run("quantize", model, "-o", tmp_path / "out", "--plan", tmp_path / "plan.json")
    assert announced == [True]
