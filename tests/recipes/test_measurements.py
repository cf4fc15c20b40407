"""Measurements of a finished run serve other budgets, and no other model or calls."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

import mezzotint as mz
from mezzotint._journal import Record
from mezzotint.errors import JournalError
from mezzotint.formats import MINMAX
from mezzotint.measuring import Task
from tests import journals
from tests.recipes.conftest import MEASURED
from tests.recipes.watching import watched

FILE = "measurements.jsonl"

INPUTS = ("int8/token", "uint8/token")
"""Measured beside the weights."""

quick = partial(mz.Auto, sensitivity="measured", smoothing=False)
"""Every candidate is measured, and each layer has as many."""


def of_layers(tasks: list[Task]) -> list[Task]:
    """Measurements of single layers: every plan that is found is measured as well."""
    return [task for task in tasks if task.change.layer is not None]


@pytest.fixture(scope="module")
def finished(folder, sampling, journal, tmp_path_factory) -> Path:
    """The folder of a finished run."""
    path = tmp_path_factory.mktemp("finished") / "out"
    return mz.quantize(mz.load(folder), MEASURED, sampling=sampling, journal=journal).save(path)


def test_a_result_keeps_all_that_was_measured(finished, journal):
    assert Record.read(finished / FILE) == Record.read(journal)


def test_another_budget_measures_nothing_and_plans_as_a_fresh_run(
    pipe, sampling, finished, monkeypatch
):
    budget = mz.Budget(weight_bits=3.7)
    fresh = mz.quantize(pipe, MEASURED, budget, sampling=sampling)
    asked = watched(monkeypatch)
    again = mz.quantize(pipe, MEASURED, budget, sampling=sampling, measurements=finished)
    assert of_layers(asked) == []
    assert again.plan == fresh.plan
    assert again.measurements == fresh.measurements


def test_only_what_is_missing_is_measured(pipe, sampling, finished, monkeypatch, tmp_path):
    few = quick(formats=("int4/channel", "int7/channel"))
    budget = mz.Budget(weight_bits=6)
    fresh = mz.quantize(pipe, few, budget, sampling=sampling)
    asked = watched(monkeypatch)
    again = mz.quantize(pipe, few, budget, sampling=sampling, measurements=finished)
    assert {task.change.choice.weight for task in of_layers(asked)} == {"int7/channel"}
    assert len(of_layers(asked)) == len(fresh.plan)
    assert again.plan == fresh.plan
    # What was taken over is kept as well, for the next budget.
    kept = Record.read(again.save(tmp_path / "out") / FILE)
    assert kept.entries.keys() > Record.read(finished / FILE).entries.keys()
    assert kept.entries.keys() > fresh.record.entries.keys()


def test_a_journal_can_be_taken_up_as_well(pipe, sampling, journal, tmp_path, monkeypatch):
    cut = Path(shutil.copy(journal, tmp_path / "cut.jsonl"))
    # Other budgets, tried before, may have left plans of their own at the end.
    units = [each for each in cut.read_bytes().splitlines(True) if b'"unit": "plan ' not in each]
    cut.write_bytes(b"".join(units)[:-10])
    asked = watched(monkeypatch)
    mz.quantize(pipe, MEASURED, sampling=sampling, measurements=cut)
    assert len(of_layers(asked)) == 1


def test_what_is_taken_over_goes_into_the_journal_at_once(pipe, sampling, finished, tmp_path):
    path = tmp_path / "journal.jsonl"
    mz.quantize(pipe, MEASURED, sampling=sampling, measurements=finished, journal=path)
    assert Record.read(path) == Record.read(finished / FILE)


def test_those_of_another_model_are_refused(pipe, sampling, finished):
    pipe.unet.conv_out.bias.data[0] += 0.1
    with pytest.raises(JournalError, match=rf"{FILE}: holds measurements of another model; leave"):
        mz.quantize(pipe, MEASURED, sampling=sampling, measurements=finished)


def test_those_of_other_prompts_are_refused(pipe, finished):
    other = mz.Sampling(prompts=("tree", "house"))
    with pytest.raises(JournalError, match="of other prompts, seeds or steps; leave it out"):
        mz.quantize(pipe, MEASURED, sampling=other, measurements=finished)


def test_those_of_other_calls_are_refused(pipe, sampling, finished):
    calls = mz.record_calls(pipe, sampling)
    mz.quantize(
        pipe, MEASURED, sampling=sampling, calls=calls, measurements=finished
    )  # the same ones
    with pytest.raises(JournalError, match="of other calls of the denoiser; leave it out"):
        mz.quantize(pipe, MEASURED, sampling=sampling, calls=calls[:1], measurements=finished)


def test_those_of_formats_of_an_earlier_version_are_refused(pipe, sampling, finished, tmp_path):
    """Until plans of version 3, `int4/channel` had scales in float32."""
    earlier = Path(shutil.copy(finished / FILE, tmp_path / FILE))

    def without_formats(header, entries):
        del header["formats"]
        return entries

    journals.edit(earlier, without_formats)
    with pytest.raises(JournalError, match="formats as plans of another version have them; leave"):
        mz.quantize(pipe, MEASURED, sampling=sampling, measurements=earlier)


def test_another_range_search_is_measured_anew(pipe, sampling, finished, monkeypatch):
    recipe = quick(formats=("int8/channel",), search=MINMAX)
    asked = watched(monkeypatch)
    budget = mz.Budget(weight_bits=16)
    result = mz.quantize(pipe, recipe, budget, sampling=sampling, measurements=finished)
    assert len(of_layers(asked)) == len(result.plan)


def test_another_metric_takes_up_the_same_journal(pipe, sampling, monkeypatch, tmp_path):
    few = mz.Sampling(prompts=sampling.prompts, steps=1)
    formats, budget = ("int4/channel", "int8/channel"), mz.Budget(weight_bits=6)

    def quantized(metric: str, *, earlier: Path | None = None) -> mz.Result:
        recipe = quick(formats=formats, metric=metric)
        return mz.quantize(pipe, recipe, budget, sampling=few, measurements=earlier)

    by_outputs = quantized("noise").save(tmp_path / "noise")
    asked = watched(monkeypatch)
    by_images = quantized("ssim", earlier=by_outputs)
    assert {task.metric.kind for task in asked} == {"ssim"}
    assert len(of_layers(asked)) == (len(formats) + len(INPUTS)) * len(by_images.plan)
    both = by_images.save(tmp_path / "both")
    asked.clear()
    assert quantized("ssim", earlier=both).plan == by_images.plan
    quantized("noise", earlier=both)
    assert asked == []
    # Another decoder makes other images of the same outputs.
    for weight in pipe.vae.parameters():
        weight.data.mul_(1.3)
    quantized("noise", earlier=both)
    assert asked == []
    quantized("ssim", earlier=both)
    assert len(of_layers(asked)) == (len(formats) + len(INPUTS)) * len(by_images.plan)


def test_a_folder_without_any_is_refused(pipe, sampling, folder):
    with pytest.raises(JournalError, match=f"{FILE}: holds no measurements"):
        mz.quantize(pipe, MEASURED, sampling=sampling, measurements=folder)


def test_damaged_ones_are_refused_before_anything_is_recorded(pipe, finished, tmp_path):
    lines = (finished / FILE).read_bytes().splitlines(keepends=True)
    (tmp_path / FILE).write_bytes(lines[0] + b"garbage\n" + lines[1])
    pipe.unet.register_forward_pre_hook(lambda module, args: pytest.fail("was run"))
    with pytest.raises(JournalError, match="line 2 is damaged"):
        mz.quantize(pipe, MEASURED, measurements=tmp_path)


def test_mixdq_measures_no_layer_twice(pipe, sampling, tmp_path, monkeypatch):
    few = mz.Sampling(prompts=sampling.prompts, steps=1)
    recipe = mz.MixDQ(
        content_weight_bits=(4, 8), activation_bits=(8,), split="none", selection_prompts=1
    )
    first = mz.quantize(pipe, recipe, mz.Budget(weight_bits=7.5), sampling=few)
    folder = first.save(tmp_path / "out")
    names = {json.loads(line)["unit"] for line in (folder / FILE).read_text().splitlines()[1:]}
    assert any("| ssim | images " in name for name in names)
    asked = watched(monkeypatch)
    again = mz.quantize(pipe, recipe, mz.Budget(weight_bits=8.5), sampling=few, measurements=folder)
    assert asked == []
    assert again.plan.choices != first.plan.choices


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ("{}", "noise is missing"),
        ('{"noise": "x"}', "noise is 'x'; expected a number"),
        ('{"noise": true}', "noise is True; expected a number"),
        ('{"noise": null}', "noise is None; expected a number"),
        ('{"noise": NaN}', "noise is nan; expected a number"),
        ('{"noise": -0.5}', "noise is -0.5; expected 0 to inf"),
        ('{"noise": 0.5, "nose": 0.5}', "nose is no figure of"),
    ],
)
@pytest.mark.parametrize("role", ["journal", "measurements"])
def test_damaged_figures_are_named(pipe, sampling, journal, tmp_path, role, result, why):
    path = Path(shutil.copy(journal, tmp_path / "damaged.jsonl"))
    unit = json.loads(path.read_text().splitlines()[1])["unit"]
    journals.edit(path, lambda _, entries: [(unit, json.loads(result)), *entries[1:]])
    with pytest.raises(JournalError) as caught:
        mz.quantize(pipe, MEASURED, sampling=sampling, **{role: path})
    assert str(caught.value).startswith(f"{path}: unit {unit!r}: {why}")
