"""Figures of changed models: an executor, and the journal of what it has measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from mezzotint._journal import Journal, Record, differing
from mezzotint._progress import announcer
from mezzotint.errors import JournalError
from mezzotint.measuring import (
    Change,
    Executor,
    ExecutorFactory,
    Figures,
    InProcess,
    InputChange,
    LayerChange,
    Metric,
    Original,
    Task,
    conditional_key,
    measure,
    measure_layers,
    task_seconds,
    tell,
)
from mezzotint.plan import Choice
from mezzotint.runtime import Calibration

OUTPUTS = "outputs"
"""Sight of the metrics that all take as long: a run of all recorded calls."""


@dataclass(frozen=True, eq=False)
class Measuring:
    """An executor, and the journal of what it has measured.

    Attributes:
        original: the floating model.
        make: makes what runs those that the journal lacks.
        journal: open.
        seconds: of one measurement on all calls (`OUTPUTS`), or by a metric of images, of those
            that are known.
    """

    original: Original
    make: ExecutorFactory
    journal: Journal
    seconds: dict[object, float] = field(default_factory=dict)

    @cached_property
    def executor(self) -> Executor:
        """Runs what the journal lacks."""
        return self.make(self.original)

    def recalibrated(self, calibration: Calibration) -> Measuring:
        """The same model and journal, with other calibrated values."""
        return replace(self, original=replace(self.original, calibration=calibration))

    def figures(self, tasks: Sequence[Task], label: str = "Measuring") -> list[Figures]:
        """The figures of every task, in their order; see `measure`.

        How long that will take is announced.
        """
        self._tell(tasks, label)
        return measure(tasks, self.executor, self.journal, key=self._key, label=label)

    def layers(
        self, changes: Sequence[LayerChange | InputChange], metric: Metric
    ) -> dict[str, dict[Choice, Figures]]:
        """Figures by layer and choice, all other layers floating; see `measure_layers`.

        How long that will take is announced.
        """
        self._tell([Task(change, metric) for change in changes], "Measuring")
        return measure_layers(changes, metric, self.executor, self.journal, key=self._key)

    def losses(
        self, changes: Sequence[Change], metric: Metric, label: str = "Measuring"
    ) -> list[float]:
        """The metric's loss of each change, infinite where it ruins the model."""
        found = self.figures([Task(change, metric) for change in changes], label)
        return [metric.loss(figures) for figures in found]

    def _tell(self, tasks: Sequence[Task], label: str) -> None:
        """Announce the tasks that the journal lacks, a line for each metric."""
        if announcer() is None:
            return
        missing = {
            key: task for task in tasks if (key := self._key(task)) not in self.journal
        }.values()
        for metric in dict.fromkeys(task.metric for task in missing):
            changes = [task.change for task in missing if task.metric == metric]
            layers = {change.layer for change in changes if change.layer is not None}
            what = f"changes of {len(layers)} layers" if layers else "changes of the whole model"
            by_calls = f" on {len(self.original.calls)} calls"
            what += by_calls if metric.sees == "outputs" else " by images"
            # Where layers are changed, it is first observed in which order all modules run.
            here = self.executor
            observed = 1 if layers and isinstance(here, InProcess) and here.cache_bytes != 0 else 0
            tell(
                label,
                len(changes),
                partial(self._seconds, metric),
                what,
                passes_before=observed,
            )

    def _seconds(self, metric: Metric) -> float:
        """Seconds after which another task is done: executors may say how many run at once."""
        key = OUTPUTS if metric.sees == OUTPUTS else metric
        if key not in self.seconds:
            self.seconds[key] = task_seconds(self.original, metric)
        return self.seconds[key] / getattr(self.executor, "at_once", 1)

    def _key(self, task: Task) -> str:
        return conditional_key(task, self.original)


_MEANINGS = {
    "model": "another model",
    "calls": "other calls of the denoiser",
    "sampling": "other prompts, seeds or steps",
    "torch": "another version of torch",
    "formats": "formats as plans of another version have them",
}


def take_over(journal: Journal, source: Path, record: Record) -> None:
    """Add what an earlier run has measured, where it is of the same.

    Raises:
        JournalError: it is not; names what differs.
    """
    key = differing(journal.header, record.header)
    if key is not None:
        then, now = record.header.get(key), journal.header.get(key)
        meaning = _MEANINGS.get(key, f"another {key} (then {then!r}, now {now!r})")
        raise JournalError(
            f"{source}: holds measurements of {meaning}; leave it out to measure anew"
        )
    for unit, result in record.entries.items():
        if unit not in journal:
            journal.add(unit, result, source)
