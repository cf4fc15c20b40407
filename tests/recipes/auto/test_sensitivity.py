"""Losses by probes, by measuring, or by both: what is run, and what comes of it."""

from __future__ import annotations

import dataclasses
import gc
import math
import shutil
import tempfile
from pathlib import Path

import pytest

import mezzotint as mz
from mezzotint._journal import Record
from mezzotint._progress import listening
from mezzotint.measuring import Prober
from mezzotint.recipes.auto.search import Search
from tests.recipes.auto.conftest import FORMATS
from tests.recipes.auto.denoisers import Chain, Cut, OneWay, calls
from tests.recipes.watching import watched


@pytest.mark.parametrize("sensitivity", ["probes", "hybrid"])
def test_plans_are_as_good_as_fully_measured_ones(run, sensitivity):
    measured = run(sensitivity="measured")
    found = run(sensitivity=sensitivity, probes=256, exchanges=False)

    def loss(result: mz.ModuleResult) -> float:
        return sum(measured.measurements[n][c]["noise"] for n, c in result.plan.choices.items())

    assert loss(measured) <= loss(found) <= 1.1 * loss(measured)


def test_every_plan_says_how_it_was_found(run):
    for sensitivity in ("probes", "hybrid", "measured"):
        context = run(sensitivity=sensitivity, exchanges=False).plan.context
        assert context["sensitivity"] == sensitivity
        assert ("probes" in context) == (sensitivity != "measured")
        assert ("measured_sqnr_db" in context) == (sensitivity != "probes")
        notes = " ".join(context["notes"])
        assert ("dB of signal to noise on the recorded calls" in notes) == (sensitivity != "probes")


def test_probes_alone_run_no_change(run, monkeypatch):
    asked = watched(monkeypatch)
    run(sensitivity="probes", exchanges=False)
    assert asked == []


def test_a_hybrid_measures_few_formats_and_the_plan(run, monkeypatch):
    asked = watched(monkeypatch)
    plan = run(probes=8, exchanges=False, bias_correction="never").plan
    layers = [task for task in asked if task.change.layer is not None]
    assert 0 < len(layers) == plan.context["measured_formats"] < 4 * 7
    assert len(asked) - len(layers) == 2  # the plan, and its weights with floating inputs


def test_probes_double_while_the_plan_is_in_doubt(run):
    assert run(probes=4, exchanges=False).plan.context["probes"] == 4
    context = run(probes=4, regret=0.0, exchanges=False, sensitivity="probes").plan.context
    assert context["probes"] > 4
    assert context["regret_bound"] == 0 or context["probes"] == 256


def test_a_model_without_a_way_back_is_measured(run):
    found = run(module=OneWay().eval())
    assert any("sensitivity was measured" in note for note in found.plan.context["notes"])
    assert found.plan.context["sensitivity"] == "measured"
    assert found.plan.choices == run(sensitivity="measured").plan.choices


def test_so_it_is_where_someone_listens_how_long_that_takes(run):
    lines: list[str] = []
    with listening(lines.append):
        assert run(module=OneWay().eval()).plan.context["sensitivity"] == "measured"
    assert ", measuring " in lines[0]
    assert "probing" not in lines[0]
    assert lines[1].startswith("Measuring: ")


def test_a_layer_that_no_gradient_reaches_is_measured(run, monkeypatch):
    asked = watched(monkeypatch)
    found = run(module=Cut().eval(), exchanges=False, bias_correction="never")
    measured = {task.change.name for task in asked if task.change.layer == "first"}
    assert len(measured) == len(FORMATS) + 2  # and two formats of its input
    assert all(figures["noise"] for figures in found.measurements["first"].values())


@pytest.mark.parametrize("sensitivity", ["probes", "hybrid", "measured"])
def test_files_of_encoded_weights_go_with_the_run(run, monkeypatch, tmp_path, sensitivity):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gc.disable()  # at once, and not some time later
    try:
        run(sensitivity=sensitivity)
        assert not list(tmp_path.iterdir())
    finally:
        gc.enable()


def test_other_metrics_are_measured(run, monkeypatch):
    monkeypatch.setattr(Prober, "run", lambda *_: pytest.fail("was probed"))
    plan = run(metric="sample-noise").plan
    assert plan.context["sensitivity"] == "measured"


RECIPE = mz.Auto(formats=("int2/channel", "int4/channel", "int8/channel"), probes=8, regret=1e9)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The journal of a finished run."""
    path = tmp_path_factory.mktemp("auto") / "journal.jsonl"
    mz.quantize_module(Chain().eval(), calls(), RECIPE, mz.Budget(5), journal=path)
    return path


class TestJournal:
    """After a kill at most one unit is lost, whichever kind it is of."""

    @pytest.mark.parametrize("kept", [1, 4, 12, -2])
    def test_a_killed_run_goes_on_where_it_stopped(self, finished, tmp_path, kept):
        whole = mz.quantize_module(Chain().eval(), calls(), RECIPE, mz.Budget(5), journal=finished)
        cut = Path(shutil.copy(finished, tmp_path / "cut.jsonl"))
        lines = cut.read_bytes().splitlines(keepends=True)
        cut.write_bytes(b"".join(lines[:kept]) + lines[kept][:7])
        again = mz.quantize_module(Chain().eval(), calls(), RECIPE, mz.Budget(5), journal=cut)
        assert again.plan == whole.plan
        assert Record.read(cut) == Record.read(finished)
        assert len(cut.read_bytes().splitlines()) == len(lines)

    def test_probes_serve_other_budgets(self, finished, tmp_path):
        recipe, path = dataclasses.replace(RECIPE, exchanges=False), tmp_path / "next.jsonl"
        mz.quantize_module(
            Chain().eval(), calls(), recipe, mz.Budget(3.5), measurements=finished, journal=path
        )
        new = Record.read(path).entries.keys() - Record.read(finished).entries.keys()
        assert new
        assert not [unit for unit in new if unit.startswith("probe of")]


def test_a_plan_that_ruins_the_outputs_comes_with_a_warning(run, monkeypatch):
    ordinary = Search.plan_losses

    def ruined(self: Search, plans: list[mz.Plan]) -> list[float]:
        return [math.inf for _ in ordinary(self, plans)]

    monkeypatch.setattr(Search, "plan_losses", ruined)
    plan = run(exchanges=False).plan
    assert any("outputs hold NaN or infinite values" in note for note in plan.context["notes"])
    assert "measured_sqnr_db" not in plan.context
