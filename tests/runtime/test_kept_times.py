"""Measured times in a file for a machine, which several processes share."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from mezzotint.runtime import kept_times
from mezzotint.runtime.cpu.machine import Machine
from mezzotint.runtime.kept_times import KeptTimes, least_seconds

HERE = Machine.here()
WAYS = ("one", "other")


def never() -> dict[str, float]:
    pytest.fail("it is known already")


def measured(one: float = 2.0, other: float = 1.0) -> Callable[[], dict[str, float]]:
    return lambda: {"one": one, "other": other}


def expected(one: float = 2.0, other: float = 1.0) -> dict[str, float]:
    return {"one": 1e3 * one, "other": 1e3 * other}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "times.json"


def test_a_class_of_work_is_measured_once_on_a_machine(file: Path):
    kept = KeptTimes(file, HERE)
    assert kept.of("work", WAYS, measured()) == expected()
    assert kept.of("work", WAYS, never) == expected()
    assert KeptTimes(file, HERE).of("work", WAYS, never) == expected()


def test_another_process_may_have_measured_meanwhile(file: Path):
    here, there = (KeptTimes(file, HERE) for _ in range(2))
    assert not here.known()
    there.of("work", WAYS, measured())
    assert here.of("work", WAYS, never) == expected()


def test_processes_that_measure_other_work_keep_what_they_find_of_each_other(file: Path):
    here, there = (KeptTimes(file, HERE) for _ in range(2))
    assert not here.known()
    there.of("work", WAYS, measured())
    here.of("other work", WAYS, measured())
    assert KeptTimes(file, HERE).known().keys() == {"work", "other work"}


def test_a_process_stays_with_what_it_knows(file: Path):
    kept = KeptTimes(file, HERE)
    kept.of("work", WAYS, measured())
    file.unlink()
    KeptTimes(file, HERE).of("work", WAYS, measured(one=9.0))
    kept.of("other work", WAYS, measured())
    assert kept.of("work", WAYS, never) == expected()


def test_what_leaves_a_way_out_is_measured_again_by_other_processes(file: Path):
    kept = KeptTimes(file, HERE)
    assert kept.of("work", WAYS, lambda: {"one": 1.0}) == {"one": 1000.0}
    assert kept.of("work", WAYS, never) == {"one": 1000.0}
    assert KeptTimes(file, HERE).of("work", WAYS, measured()) == expected()


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-1", "true", '"1"', "null", "[]", "{}"])
def test_what_is_no_time_is_not_believed(bad: str, file: Path):
    file.parent.mkdir()
    machine = json.dumps(HERE.to_dict())
    times = f'{{"work": {{"one": {bad}, "other": 1.0}}}}'
    file.write_text(f'{{"machine": {machine}, "milliseconds": {times}}}')
    assert KeptTimes(file, HERE).of("work", WAYS, measured()) == expected()
    assert KeptTimes(file, HERE).of("work", WAYS, never) == expected()


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, '{"work": {"one": 1}}', "\x00"])
def test_a_damaged_file_is_written_anew(content: str, file: Path):
    file.parent.mkdir()
    file.write_text(content)
    assert KeptTimes(file, HERE).of("work", WAYS, measured()) == expected()
    assert KeptTimes(file, HERE).of("work", WAYS, never) == expected()


def test_times_of_another_machine_are_not_believed(file: Path):
    KeptTimes(file, replace(HERE, processor="another")).of("work", WAYS, measured(one=9.0))
    assert KeptTimes(file, HERE).of("work", WAYS, measured()) == expected()


def test_without_a_folder_a_process_measures_for_itself(tmp_path: Path):
    (tmp_path / "folder").write_text("a file where the folder should be")
    kept = KeptTimes(tmp_path / "folder" / "times.json", HERE)
    assert kept.of("work", WAYS, measured()) == expected()
    assert kept.of("work", WAYS, never) == expected()


def test_a_process_that_was_stopped_is_not_waited_for(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kept_times, "_PATIENCE", 0.01)
    file.parent.mkdir()
    with FileLock(file.with_name("times.json.lock")):
        kept = KeptTimes(file, HERE)
        assert kept.of("work", WAYS, measured()) == expected()
        assert kept._patience == 0
        assert kept.of("other work", WAYS, measured()) == expected()


def test_the_least_time_counts_and_the_first_round_does_not():
    now, took = 0.0, iter([0.1, 5.0, 3.0, 1.0, 2.0, 4.0, 3.0, 9.0])

    def call() -> None:
        nonlocal now
        now += next(took)

    found = least_seconds({"one": call, "other": call}, lambda: now)
    assert found == pytest.approx({"one": 2.0, "other": 1.0})
