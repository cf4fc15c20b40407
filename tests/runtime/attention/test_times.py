"""The choice among ways of computing attention, by times that are measured once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mezzotint._cache import CACHE_VARIABLE
from mezzotint.runtime.attention import times as module
from mezzotint.runtime.attention.call import AttentionCall, plain_call
from mezzotint.runtime.attention.shapes import ShapeClass, sample_of
from mezzotint.runtime.attention.times import Times, fastest
from mezzotint.runtime.attention.ways import TORCH
from mezzotint.runtime.cpu.machine import Machine

HERE = Machine.here()


class Ways:
    """Ways of which one takes a given time, by a clock that only they move."""

    def __init__(self, **seconds: float) -> None:
        self.seconds = seconds
        self.now = 0.0
        self.calls: list[str] = []

    def clock(self) -> float:
        return self.now

    def way(self, name: str):
        def run(call: AttentionCall) -> torch.Tensor:
            self.now += self.seconds[name]
            self.calls.append(name)
            return call.query

        return run


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    ways = Ways(torch=1.0, other=0.5)
    monkeypatch.setattr(module, "WAYS", {name: ways.way(name) for name in ways.seconds})
    monkeypatch.setattr(module, "candidates", lambda call: tuple(ways.seconds))
    return ways


def call(queries: int = 300, keys: int = 300, **options: object) -> AttentionCall:
    made = plain_call(
        torch.zeros(1, 2, queries, 40),
        torch.zeros(1, 2, keys, 40),
        torch.zeros(1, 2, keys, 40),
        *(None, False, None, False),
    )
    assert made is not None
    return replace(made, **options)


def test_the_fastest_way_is_taken(ways: Ways, tmp_path: Path):
    assert Times(tmp_path / "a.json", HERE, ways.clock).way(call()) == "other"
    ways.seconds["other"] = 2.0
    assert Times(tmp_path / "b.json", HERE, ways.clock).way(call()) == TORCH


def test_torch_serves_unless_another_is_clearly_faster():
    assert fastest({TORCH: 1.0, "other": 0.95}) == TORCH
    assert fastest({TORCH: 1.0, "other": 0.85}) == "other"


def test_a_class_of_shapes_is_measured_once(ways: Ways, tmp_path: Path):
    times = Times(tmp_path / "times.json", HERE, ways.clock)
    times.way(call())
    measured = len(ways.calls)
    assert ways.calls[:4] == [TORCH, "other"] * 2
    times.way(call())
    times.way(call(queries=310))  # of the same class
    assert len(ways.calls) == measured
    times.way(call(queries=1300))
    assert len(ways.calls) == 2 * measured


def test_a_later_process_measures_nothing(ways: Ways, tmp_path: Path):
    file = tmp_path / "folder" / "times.json"
    Times(file, HERE, ways.clock).way(call())
    ways.calls.clear()
    again = Times(file, HERE, ways.clock)
    assert again.way(call()) == "other"
    assert not ways.calls
    shapes = str(ShapeClass.of(call()))
    assert again.milliseconds() == {shapes: {TORCH: 1000.0, "other": 500.0}}


def test_processes_add_to_one_file(ways: Ways, tmp_path: Path):
    file = tmp_path / "times.json"
    one, other = (Times(file, HERE, ways.clock) for _ in range(2))
    assert not other.milliseconds()
    one.way(call())
    other.way(call(keys=2000))
    assert len(Times(file, HERE).milliseconds()) == 2
    assert json.loads(file.read_text("utf-8"))["machine"] == HERE.to_dict()


def test_a_way_that_is_new_has_its_class_measured_again(ways: Ways, tmp_path: Path):
    file = tmp_path / "times.json"
    Times(file, HERE, ways.clock).way(call())
    ways.seconds["third"] = 0.1
    module.WAYS["third"] = ways.way("third")  # type: ignore[index]
    assert Times(file, HERE, ways.clock).way(call()) == "third"


@pytest.mark.parametrize("content", ["", "[]", '{"machine": {}, "milliseconds": {"a": {"b": -1}}}'])
def test_a_damaged_file_is_measured_anew(ways: Ways, tmp_path: Path, content: str):
    file = tmp_path / "times.json"
    file.write_text(content)
    assert Times(file, HERE, ways.clock).way(call()) == "other"
    assert Times(file, HERE).milliseconds()


def test_without_a_folder_this_process_measures_for_itself(ways: Ways, tmp_path: Path):
    (tmp_path / "file").write_text("")
    times = Times(tmp_path / "file" / "times.json", HERE, ways.clock)
    assert times.way(call()) == "other"
    measured = len(ways.calls)
    assert times.way(call()) == "other"
    assert len(ways.calls) == measured


def test_where_torch_alone_can_compute_nothing_is_measured(
    ways: Ways, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(module, "candidates", lambda call: (TORCH,))
    assert Times(tmp_path / "times.json", HERE, ways.clock).way(call()) == TORCH
    assert not ways.calls


def test_each_number_of_threads_has_times_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    before = torch.get_num_threads()
    one = Times.here()
    try:
        torch.set_num_threads(before + 1)
        assert Times.here() is not one
    finally:
        torch.set_num_threads(before)
    assert Times.here() is one
    monkeypatch.delenv(CACHE_VARIABLE)
    assert Times.here() is not one


@pytest.mark.parametrize(
    "change",
    [
        {"query": torch.zeros(1, 2, 600, 40)},
        {"key": torch.zeros(1, 2, 77, 40)},
        {"value": torch.zeros(1, 2, 300, 64)},
        {"query": torch.zeros(1, 2, 300, 40, dtype=torch.bfloat16)},
        {"mask": torch.zeros(1, 2, 300, 300)},
        {"causal": True},
    ],
    ids=["queries", "keys", "features", "dtype", "mask", "causal"],
)
def test_classes_differ_by_all_that_times_depend_on(change: dict[str, object]):
    assert ShapeClass.of(call()) != ShapeClass.of(call(**change))


def test_heads_and_batch_make_no_class():
    many = call(query=torch.zeros(4, 16, 300, 40))
    assert ShapeClass.of(many) == ShapeClass.of(call())


def test_a_sample_is_a_small_part():
    long = call(query=torch.zeros(2, 16, 9000, 40), mask=torch.zeros(2, 16, 9000, 300))
    long = replace(long, key=torch.zeros(2, 8, 300, 40), value=torch.zeros(2, 8, 300, 40))
    sample = sample_of(long, threads=2)
    assert sample.query.shape == (1, 4, 1024, 40)
    assert sample.key.shape == sample.value.shape == (1, 2, 300, 40)
    assert sample.mask is not None
    assert sample.mask.shape == (1, 4, 1024, 300)
    causal = sample_of(replace(long, mask=None, causal=True), threads=2)
    assert causal.query.shape == (1, 4, 9000, 40)
