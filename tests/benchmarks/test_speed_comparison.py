"""Contestants in processes of their own, called in turns."""

import pytest

from benchmarks.contestants.environments import Environment
from benchmarks.contestants.speed_comparison import SpeedComparison
from benchmarks.contestants.speed_contestants import selected
from benchmarks.contestants.timed_denoiser import TimedDenoiser
from benchmarks.contestants.worker_process import FailedError, WorkerProcess

REPEATS = 3


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return TimedDenoiser("emoji-turbo", "cpu", "float32", 1, tmp_path_factory.mktemp("cache"), 300)


@pytest.fixture(scope="module")
def rows(target):
    """One that runs, and one that cannot."""
    comparison = SpeedComparison(target, (1, 2), REPEATS, slowest=1000)
    contestants = selected(["torch-fp32", "torch-fp16"])
    found = comparison.rows(contestants, baselines=selected(["torch-fp32"]))
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


def test_a_request_that_fails_leaves_the_process_alive(target):
    with WorkerProcess("wrong", Environment(), 1, target.cache / "logs") as worker:
        with pytest.raises(FailedError, match="AttributeError"):
            worker.ask("fly", 60)
        with pytest.raises(FailedError, match="TypeError"):
            worker.ask("run", 60)


def test_a_dead_process_is_told_by_its_last_words(target):
    with WorkerProcess("dead", Environment(), 1, target.cache / "logs") as worker:
        worker.process.terminate()
        with pytest.raises(FailedError, match="its process ended with code -15"):
            worker.ask("peak", 60)
