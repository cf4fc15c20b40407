"""A metric defined here measures, journals, resumes and is minimised by a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from mezzotint._journal import Journal
from mezzotint.errors import UsageError
from mezzotint.measuring import (
    Figures,
    InProcess,
    LayerChange,
    Metric,
    Original,
    Pair,
    Task,
    measure,
    metric_named,
    register_metric,
)
from mezzotint.models import Call
from mezzotint.plan import Choice


@register_metric
@dataclass(frozen=True)
class LargestError(Metric):
    """Greatest difference of any element of the output."""

    kind: ClassVar[str] = "largest-error"
    sees: ClassVar = "outputs"

    def figures(self, pairs: Iterable[Pair]) -> dict[str, float]:
        return {"largest": max(float((a - b).abs().max()) for a, b in pairs)}

    def loss(self, figures: Figures) -> float:
        return figures["largest"]


CHANGES = [LayerChange("conv_in", Choice(f"int{bits}/channel")) for bits in (2, 4, 8)]
TASKS = [Task(change, LargestError()) for change in CHANGES]


def test_it_is_found_by_its_name():
    assert metric_named("largest-error") == LargestError()


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match="unknown metric 'best'; there are: image-error, "):
        metric_named("best")


def test_it_measures(unet: nn.Module, calls: Sequence[Call]):
    executor, journal = InProcess(Original(unet, tuple(calls))), Journal(None, {})
    found = [one["largest"] for one in measure(TASKS, executor, journal)]
    assert found == sorted(found, reverse=True)
    expected = []
    for change in CHANGES:
        with torch.no_grad(), change.applied(unet, executor.original.calibration) as changed:
            outputs = [call.run(changed) for call in calls]
        expected.append(
            max(float((a.output - b).abs().max()) for a, b in zip(calls, outputs, strict=True))
        )
    assert found == expected


def test_it_resumes_from_its_journal(unet: nn.Module, calls: Sequence[Call], tmp_path: Path):
    executor = InProcess(Original(unet, tuple(calls)))
    with Journal(tmp_path / "journal", {}) as journal:
        first = measure(TASKS[:2], executor, journal)
    asked: list[Task] = []

    class Watched:
        def figures(self, tasks):
            asked.extend(tasks)
            return executor.figures(tasks)

    with Journal(tmp_path / "journal", {}) as journal:
        assert list(journal.entries) == [task.key for task in TASKS[:2]]
        assert measure(TASKS, Watched(), journal)[:2] == first
    assert asked == TASKS[2:]
