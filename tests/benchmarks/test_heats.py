"""Contestants in processes of their own, called in turns."""

import pytest

from benchmarks.contestants.client import Contender, FailedError
from benchmarks.contestants.environments import Environment
from benchmarks.contestants.field import selected
from benchmarks.contestants.heats import Meeting
from benchmarks.contestants.setting import Setting

REPEATS = 3


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    return Setting("emoji-turbo", "cpu", "float32", 1, tmp_path_factory.mktemp("cache"), 300)


@pytest.fixture(scope="module")
def rows(setting):
    """One that runs, and one that cannot."""
    meeting = Meeting(setting, (1, 2), REPEATS, slowest=1000)
    entries = selected(["torch-fp32", "torch-fp16"])
    found = meeting.rows(entries, baselines=selected(["torch-fp32"]))
    return {(row["contestant"], row["batch"]): row for row in found}


def test_every_contestant_has_a_row_for_every_batch(rows):
    assert set(rows) == {(name, batch) for name in ("torch-fp32", "torch-fp16") for batch in (1, 2)}


def test_a_row_holds_every_round(rows):
    assert len(rows["torch-fp32", 2]["seconds"]) == REPEATS


def test_outputs_are_checked_against_float32(rows):
    assert rows["torch-fp32", 1]["relative_error"] == 0.0


def test_the_baseline_is_as_fast_as_itself(rows):
    assert rows["torch-fp32", 1]["speedup"]["torch-fp32"]["ratio"] == 1.0


def test_stored_bytes_are_those_of_the_tensors(rows):
    assert rows["torch-fp32", 1]["stored_bytes"] % 4 == 0
    assert rows["torch-fp32", 1]["stored_bytes"] > 40_000_000


def test_who_cannot_run_says_why(rows):
    assert "float16" in rows["torch-fp16", 1]["reason"]


def test_a_request_that_fails_leaves_the_process_alive(setting):
    with Contender("wrong", Environment(), 1, setting.cache / "logs") as contender:
        with pytest.raises(FailedError, match="AttributeError"):
            contender.ask("fly", 60)
        with pytest.raises(FailedError, match="TypeError"):
            contender.ask("run", 60)


def test_a_dead_process_is_told_by_its_last_words(setting):
    with Contender("dead", Environment(), 1, setting.cache / "logs") as contender:
        contender.process.terminate()
        with pytest.raises(FailedError, match="its process ended with code -15"):
            contender.ask("peak", 60)
