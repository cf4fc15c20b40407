"""Recipe mpqdm and tuning on the command line: what is printed, kept, resumed and refused."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

import mezzotint as mz
from mezzotint.checkpoint import TRAINING_FILE, read_plan
from mezzotint.formats import MINMAX
from mezzotint.models import Call
from mezzotint.recipes import distillation
from mezzotint.runtime import module_bytes
from mezzotint.training import only_here, train

W2A4 = ("--recipe", "mpqdm", "--weight-bits", 2, "--act-bits", 4, "--ranges", "minmax")


@pytest.fixture(scope="module")
def trained(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model at W2A4, trained for two updates."""
    options = mz.MPQDM(train_steps=2)
    budget = mz.Budget(weight_bits=2, act_bits=4)
    pipe = mz.load(model)
    return mz.quantize(pipe, options, budget).save(tmp_path_factory.mktemp("mpqdm") / "w2a4")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_bits_and_training_are_printed(run, model, tmp_path):
    found = run("quantize", model, "-o", tmp_path / "out", *W2A4, "--train-steps", 2)
    assert found.exit_code == 0
    assert "Training: 2 updates" in found.stderr
    for text in ("nominal, without exceptions", "stored, whole denoiser", "Training", "loss"):
        assert text in found.stdout
    assert "first layer: 8 bits, not trained" in run("plan", "show", tmp_path / "out").stdout


def test_only_the_result_is_left(run, model, tmp_path):
    run("quantize", model, "-o", tmp_path / "out", *W2A4, "--train-steps", 2)
    assert names(tmp_path) == {"out"}
    curve = json.loads((tmp_path / "out" / TRAINING_FILE).read_text("utf-8"))
    assert curve["updates"] == 2


def test_the_json_has_the_curve(run, model, tmp_path):
    options = [*W2A4, "--train-steps", 1, "--json"]
    value = json.loads(run("quantize", model, "-o", tmp_path / "out", *options).stdout)
    assert value["training"]["updates"] == 1
    assert value["plan"]["context"]["bits"]["nominal"] == 2


def test_no_training_needs_no_minutes(run, model, tmp_path):
    found = run("quantize", model, "-o", tmp_path / "out", *W2A4, "--train-minutes", 0)
    assert "Training" not in found.stdout + found.stderr
    assert not (tmp_path / "out" / TRAINING_FILE).exists()
    assert not read_plan(tmp_path / "out").trained


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--weight-bits", 1], "channels none"),
        (["--weight-bits", 2.5], "weight_bits"),
        (["--weight-bits", 2, "--act-bits", 1], "act_bits"),
        (["--size", "1kB"], "cannot be met"),
        (["--weight-bits", 2, "--train-steps", 1, "--train-minutes", 1], "train_steps"),
        (["--weight-bits", 2, "--temperature", 0], "temperature"),
        (["--weight-bits", 2, "--latency", "0.5x"], "latency"),
    ],
    ids=["no bit to take", "part of a bit", "one bit of input", "too few bytes",
         "updates and minutes", "no temperature", "a latency"],
)  # fmt: skip
def test_what_the_method_cannot_do_is_refused(fails, model, tmp_path, options, named):
    command = ["quantize", model, "-o", tmp_path / "out", "--recipe", "mpqdm", *options]
    assert named in fails(*command)
    assert not names(tmp_path)


def test_there_are_no_earlier_measurements_to_take_over(fails, model, tmp_path):
    (tmp_path / "journal.jsonl").write_text('{"header": {}}\n')
    options = [*W2A4, "--measurements", tmp_path / "journal.jsonl"]
    assert "measures no layer" in fails("quantize", model, "-o", tmp_path / "out", *options)


def test_empty_prompts_are_refused(fails, model, tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    options = [*W2A4, "--prompts", tmp_path / "empty.txt"]
    assert "empty.txt" in fails("quantize", model, "-o", tmp_path / "out", *options)
    assert names(tmp_path) == {"empty.txt"}


def test_a_folder_of_something_else_is_kept(fails, model, tmp_path):
    (tmp_path / "out.training").mkdir()
    (tmp_path / "out.training" / "mine.txt").write_text("mine")
    message = fails("quantize", model, "-o", tmp_path / "out", *W2A4, "--train-steps", 1)
    assert "out.training: holds something else than a training" in message
    assert (tmp_path / "out.training" / "mine.txt").exists()
    assert names(tmp_path) == {"out.training"}


def test_the_training_of_another_run_is_named_and_kept(fails, model, tmp_path):
    journal = tmp_path / "out.journal.jsonl"
    budget = mz.Budget(weight_bits=2, act_bits=4)
    mz.quantize(mz.load(model), mz.MPQDM(train_steps=1, seed=7), budget, journal=journal)
    options = [*W2A4, "--train-steps", 1, "--resume"]
    assert "seed" in fails("quantize", model, "-o", tmp_path / "out", *options)
    assert names(tmp_path) == {"out.training"}


@pytest.fixture
def failed(model, tmp_path) -> Path:
    """Where a training of the result `out` has failed, after some updates."""

    def kill() -> float:
        clock["looks"] += 1
        if clock["looks"] > 30:
            raise KeyboardInterrupt
        return 120.0 * clock["looks"]

    clock = {"looks": 0}
    budget, journal = mz.Budget(weight_bits=2, act_bits=4), tmp_path / "out.journal.jsonl"
    options = mz.MPQDM(train_steps=50, ranges=MINMAX)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distillation, "train", partial(train, clock=kill))
        with pytest.raises(KeyboardInterrupt):
            mz.quantize(mz.load(model), options, budget, journal=journal)
    assert names(tmp_path) == {"out.training"}
    return tmp_path


class TestInterruptedTraining:
    """States of a training beside the result are gone on with, packed, or given up: never lost."""

    def test_without_resume_it_is_kept(self, fails, model, failed):
        message = fails("quantize", model, "-o", failed / "out", *W2A4, "--train-steps", 50)
        assert "holds a training that was interrupted; add --resume" in message
        assert names(failed) == {"out.training"}

    def test_force_begins_anew(self, run, model, failed):
        options = [*W2A4, "--train-steps", 1, "--force"]
        assert run("quantize", model, "-o", failed / "out", *options).exit_code == 0
        assert json.loads((failed / "out" / TRAINING_FILE).read_text("utf-8"))["updates"] == 1
        assert names(failed) == {"out"}

    @pytest.mark.parametrize("none", ["--train-steps", "--train-minutes"])
    def test_its_state_can_be_packed(self, run, model, failed, none):
        found = run("quantize", model, "-o", failed / "out", *W2A4, none, 0, "--resume")
        assert found.exit_code == 0
        assert "what an earlier one has come to is taken" in found.stderr
        assert names(failed) == {"out"}
        assert read_plan(failed / "out").trained
        assert json.loads((failed / "out" / TRAINING_FILE).read_text("utf-8"))["updates"] > 0

    @pytest.mark.parametrize(
        ("damage", "options", "named"),
        [
            (False, ["--train-steps", 50, "--temperature", 0.5], "options.temperature"),
            (False, ["--train-steps", 9], "options.steps"),
            (True, ["--train-steps", 50], "training.safetensors: is damaged"),
            (True, ["--train-steps", 0], "training.safetensors: is damaged"),
        ],
        ids=["other options", "other length", "damaged", "damaged, to be packed"],
    )
    def test_what_stands_in_its_way_is_found_before_anything_is_run(
        self, fails, model, failed, monkeypatch, damage, options, named
    ):
        if damage:
            with (failed / "out.training" / "training.safetensors").open("ab") as file:
                file.write(b"x")
        monkeypatch.setattr(Call, "run", None)  # whoever calibrates fails
        command = ["quantize", model, "-o", failed / "out", *W2A4, *options, "--resume"]
        assert named in fails(*command)
        assert names(failed) == {"out.training"}

    def test_two_runs_do_not_share_it(self, fails, model, failed):
        options = [*W2A4, "--train-steps", 50, "--resume"]
        with only_here(failed / "out.training"):
            message = fails("quantize", model, "-o", failed / "out", *options)
        assert "another process is at work" in message
        assert names(failed) == {"out.training"}

    def test_tuning_finds_it_as_well(self, fails, model, quantized, failed):
        options = ["--reference", model, "--steps", 2]
        assert "add --resume" in fails("tune", quantized, "-o", failed / "out", *options)
        options.append("--resume")
        assert "options.steps" in fails("tune", quantized, "-o", failed / "out", *options)


class TestTunedPlansOfAuto:
    QUICK = ("--formats", "int8/channel,int4/channel", "--sensitivity", "probes", "--probes", 4,
             "--regret", 100, "--no-exchanges", "--bias-correction", "never")  # fmt: skip

    def test_scales_are_trained_at_the_end(self, run, model, tmp_path):
        command = ["quantize", model, "-o", tmp_path / "out", "--weight-bits", 6, *self.QUICK]
        found = run(*command, "--tune-steps", 2)
        assert found.exit_code == 0
        assert "Training: 2 updates" in found.stderr
        assert "were trained after all else was measured" in found.stdout
        assert names(tmp_path) == {"out"}
        assert json.loads((tmp_path / "out" / TRAINING_FILE).read_text("utf-8"))["updates"] == 2

    @pytest.mark.parametrize("option", [("--tune-minutes", -1), ("--tune-steps", -1)], ids=str)
    def test_negative_lengths_are_refused(self, fails, model, tmp_path, option):
        message = fails("quantize", model, "-o", tmp_path / "out", *option)
        assert message.startswith(option[0].removeprefix("--").replace("-", "_"))


def test_scales_of_any_plan_are_tuned(run, model, quantized, tmp_path):
    options = ["--reference", model, "--steps", 2]
    found = run("tune", quantized, "-o", tmp_path / "out", *options)
    assert found.exit_code == 0
    assert "Training: 2 updates" in found.stderr
    assert names(tmp_path) == {"out"}
    assert (tmp_path / "out" / TRAINING_FILE).is_file()
    assert read_plan(tmp_path / "out").choices == read_plan(quantized).choices
    sizes = {module_bytes(mz.load(path).unet) for path in (quantized, tmp_path / "out")}
    assert len(sizes) == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--minutes", 1, "--steps", 1], "--steps"),
        (["--minutes", -1], "minutes"),
        (["--steps", -1], "steps"),
        (["--prompts", "nowhere.txt"], "nowhere.txt"),
    ],
    ids=["minutes and updates", "minutes", "updates", "prompts"],
)
def test_wrong_options_of_tuning_are_named(fails, model, quantized, tmp_path, options, named):
    command = ["tune", quantized, "-o", tmp_path / "out", "--reference", model, *options]
    assert named in fails(*command)
    assert not names(tmp_path)


def test_tuning_needs_the_original(fails, tmp_path):
    mz.Plan({"conv_in": mz.Choice("int4/channel")}).save(tmp_path / "plan.json")
    message = fails("tune", tmp_path / "plan.json", "-o", tmp_path / "out")
    assert "--reference" in message


def test_tuning_takes_plans_of_that_model_only(fails, model, tmp_path):
    mz.Plan({"elsewhere": mz.Choice("int4/channel")}).save(tmp_path / "plan.json")
    options = ["--reference", model, "--steps", 1]
    message = fails("tune", tmp_path / "plan.json", "-o", tmp_path / "out", *options)
    assert "elsewhere" in message
    assert names(tmp_path) == {"plan.json"}


def test_weights_that_are_trained_already_are_not_tuned_again(fails, model, trained, tmp_path):
    options = ["--reference", model, "--steps", 1]
    message = fails("tune", trained, "-o", tmp_path / "out", *options)
    assert "its weight has been trained already" in message
    assert not names(tmp_path)


def test_an_output_below_a_file_is_refused_before_any_work(fails, model, tmp_path):
    (tmp_path / "file").touch()
    message = fails("quantize", model, "-o", tmp_path / "file" / "out", "--recipe", "mpqdm")
    assert "is no folder to write to" in message
    assert names(tmp_path) == {"file"}
