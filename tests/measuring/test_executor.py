"""Tasks are pure values: any executor may run them, anywhere and in any order."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from mezzotint._journal import Journal
from mezzotint.measuring import (
    Figures,
    ImageError,
    InProcess,
    InputChange,
    LayerChange,
    Noise,
    Original,
    PlanChange,
    Similarity,
    Task,
    Unchanged,
    measure,
)
from mezzotint.models import Call
from mezzotint.plan import Choice, Plan

W2, W4 = Choice("int2/channel"), Choice("int4/channel", "int8/token")
TASKS = [
    Task(LayerChange("conv_out", W2), Noise()),
    Task(InputChange("conv_in", W4), Noise()),
    Task(LayerChange("conv_in", W4), Noise()),
    Task(PlanChange(Plan({"conv_in": W2, "conv_out": W4})), Noise()),
    Task(Unchanged(), Noise()),
]

_here: list[InProcess] = []


def begin(original: Original) -> None:
    """Start a worker: it is given the model once, by value."""
    torch.set_num_threads(1)
    _here.append(InProcess(original))


def run(task: Task) -> tuple[Task, Figures]:
    """One task of a worker."""
    return next(_here[0].figures([task]))


@dataclass(frozen=True)
class OtherProcesses:
    """Runs every task by itself in some other process, as a cluster would."""

    original: Original

    def figures(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Figures]]:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, context, begin, (self.original,)) as pool:
            for future in as_completed([pool.submit(run, task) for task in tasks]):
                yield future.result()


@dataclass
class Backwards:
    """Yields in the reverse order, and fails after some."""

    inside: InProcess
    fails_after: int

    def figures(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Figures]]:
        for index, task in enumerate(reversed(tasks)):
            if index == self.fails_after:
                raise KeyboardInterrupt
            yield from self.inside.figures([task])


def test_tasks_survive_pickling_with_their_keys():
    metrics = (Noise(), Similarity(), ImageError(3))
    tasks = [Task(task.change, metric) for task in TASKS for metric in metrics]
    copies = pickle.loads(pickle.dumps(tasks))
    assert [copy.key for copy in copies] == [task.key for task in tasks]
    assert len({task.key for task in tasks}) == len(tasks)


def test_other_processes_find_the_same_figures(unet: nn.Module, calls: Sequence[Call]):
    original = Original(unet, tuple(calls))
    here = measure(TASKS, InProcess(original), Journal(None, {}))
    # One thread there, several here: sums may be taken in another order.
    there = measure(TASKS, OtherProcesses(original), Journal(None, {}))
    for mine, other in zip(here, there, strict=True):
        assert mine["noise"] == pytest.approx(other["noise"], rel=1e-3, abs=1e-12)


def test_results_are_kept_as_they_arrive_in_whatever_order(
    unet: nn.Module, calls: Sequence[Call], tmp_path: Path
):
    inside = InProcess(Original(unet, tuple(calls)))
    expected = measure(TASKS, inside, Journal(None, {}))
    with pytest.raises(KeyboardInterrupt), Journal(tmp_path / "journal", {}) as journal:
        measure(TASKS, Backwards(inside, fails_after=2), journal)
    with Journal(tmp_path / "journal", {}) as journal:
        assert list(journal.entries) == [task.key for task in reversed(TASKS[-2:])]
        assert measure(TASKS, Backwards(inside, fails_after=3), journal) == expected


def test_equal_tasks_are_run_once(unet: nn.Module, calls: Sequence[Call]):
    inside = InProcess(Original(unet, tuple(calls)))
    found = measure(TASKS[:1] * 3, Backwards(inside, fails_after=1), Journal(None, {}))
    assert found[0] == found[1] == found[2]


def test_nothing_missing_asks_nobody():
    journal = Journal(None, {})
    journal.add(TASKS[0].key, {"noise": 0.5})
    assert measure(TASKS[:1], None, journal) == [{"noise": 0.5}]
