"""A fine-tune's plan from its base's plan and measurements."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import mezzotint as mz
from mezzotint.errors import JournalError, PlanError, UsageError
from mezzotint.measuring import recorded_probes
from mezzotint.plan import joined_plan
from tests import journals
from tests.recipes.auto.denoisers import WIDTH, Chain, Images

QUICK = {"bias_correction": "never"}


def fine_tuned(size: float = 0.03) -> Chain:
    """A chain whose weights have moved a little."""
    module, generator = Chain().eval(), torch.Generator().manual_seed(9)
    with torch.no_grad():
        for weight in module.parameters():
            moved = torch.randn(weight.shape, generator=generator) * weight.std()
            weight.add_(size * moved)
    return module


@pytest.fixture
def base(run, tmp_path):
    """Folder of a base's plan and measurements."""
    result = run(mz.Budget(4), **QUICK)
    result.plan.save(tmp_path / "plan.json")
    result.record.write(tmp_path / "measurements.jsonl")
    return tmp_path


def test_the_plan_is_nearly_as_good_as_one_found_anew(run, base):
    fresh = run(mz.Budget(4), module=fine_tuned(), **QUICK).plan.context
    refit = run(mz.Budget(4), module=fine_tuned(), refit=str(base), **QUICK).plan.context
    assert refit["sensitivity"] == "refit"
    assert refit["measured_sqnr_db"] > fresh["measured_sqnr_db"] - 1


def test_a_tenth_as_many_probes_are_run_of_contested_layers_alone(run, base, tmp_path):
    journal = tmp_path / "own.journal.jsonl"
    files = {"journal": journal}
    plan = run(mz.Budget(4), module=fine_tuned(), refit=str(base), files=files, **QUICK).plan
    told = plan.context["refit"]
    units = [json.loads(line)["unit"] for line in journal.read_text().splitlines()[1:]]
    assert sum(unit.startswith("probe of call") for unit in units) == told["probes"]
    assert told["probes"] <= max(8, -(-told["base_probes"] // 10))
    asked = next(
        json.loads(line)["result"]
        for line in journal.read_text().splitlines()[1:]
        if json.loads(line)["unit"].startswith("changes that are probed")
    )
    assert len(asked) == told["contested_layers"]


def test_of_the_base_itself_the_plan_is_as_good(run, base):
    first = mz.Plan.load(base / "plan.json").context["measured_sqnr_db"]
    again = run(mz.Budget(4), refit=str(base), **QUICK).plan.context["measured_sqnr_db"]
    assert again >= first - 0.05


def test_another_budget_may_be_asked_for(run, base):
    smaller = run(mz.Budget(3.6), module=fine_tuned(), refit=str(base), **QUICK)
    larger = run(mz.Budget(5), module=fine_tuned(), refit=str(base), **QUICK)
    assert larger.plan.context["measured_sqnr_db"] > smaller.plan.context["measured_sqnr_db"]


def test_formats_that_the_base_did_not_probe_are_left_out(run, base):
    formats = ("int2/channel", "int4/channel", "int5/channel", "int8/channel")
    plan = run(mz.Budget(4), module=fine_tuned(), refit=str(base), formats=formats, **QUICK).plan
    assert "int5/channel" not in {choice.weight for choice in plan.choices.values()}


def test_a_layer_of_which_the_base_knows_nothing_is_probed_in_every_format(run, base):
    pin = ("last=int5/channel",)
    plan = run(mz.Budget(5), module=fine_tuned(), refit=str(base), pin=pin, **QUICK).plan
    assert plan["last"].weight == "int5/channel"


def test_a_base_of_other_layers_is_refused(run, base):
    with pytest.raises(PlanError, match="its plan has no layer peaked_conv"):
        run(module=Images(), on=[((torch.randn(4, 4, 6, 6),), {})], refit=str(base), **QUICK)


def test_a_base_of_other_sizes_is_refused(run, base):
    wider = Chain().eval()
    wider.peaked, wider.middle = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
    message = "is of a model whose layers have 4,096 weights, and here they have 6,144"
    with pytest.raises(PlanError, match=message):
        run(module=wider, refit=str(base), **QUICK)


def test_a_base_of_other_components_is_refused(run, base):
    joined_plan({"unet": mz.Plan.load(base / "plan.json")}).save(base / "plan.json")
    with pytest.raises(PlanError, match="its plan is of unet, and here is quantized one denoiser"):
        run(module=fine_tuned(), refit=str(base), **QUICK)


def test_a_base_without_probes_is_refused(run, base):
    def forget(header, entries):
        return [(unit, each) for unit, each in entries if not unit.startswith("probe of call")]

    journals.edit(base / "measurements.jsonl", forget)
    with pytest.raises(JournalError, match="holds no probes of a floating model"):
        run(module=fine_tuned(), refit=str(base), **QUICK)


def test_a_base_without_measurements_is_refused(run, base):
    (base / "measurements.jsonl").unlink()
    with pytest.raises(JournalError, match="holds no measurements"):
        run(module=fine_tuned(), refit=str(base), **QUICK)


@pytest.mark.parametrize(
    ("budget", "options", "message"),
    [
        (mz.Budget(quality=30), {}, "refit: keeps to bytes"),
        (mz.Budget(4), {"sensitivity": "measured"}, "refit: goes by probes of noise"),
    ],
)
def test_what_does_not_go_with_it_is_refused(run, base, budget, options, message):
    with pytest.raises(UsageError, match=message):
        run(budget, module=fine_tuned(), refit=str(base), **QUICK | options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda units: [each for each in units if "changes that" not in each[0]], "lacks the unit"),
        (lambda units: [(unit, {**each, "projections": "?"}) for unit, each in units], "base64"),
    ],
    ids=["names lost", "no numbers"],
)
def test_damaged_probes_are_named(run, base, change, message):
    from mezzotint._journal import Record

    entries = Record.read(base / "measurements.jsonl").entries
    probes = [(u, e) for u, e in entries.items() if u.startswith(("probe", "changes that"))]
    with pytest.raises(JournalError, match=message):
        recorded_probes(dict(change(probes)), "here")
