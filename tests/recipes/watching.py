"""Which tasks are really run."""

from __future__ import annotations

import pytest

from mezzotint.measuring import InProcess, Task


def watched(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """A list that grows by every task that the executor of this process is given."""
    asked: list[Task] = []
    original = InProcess.figures

    def figures(self: InProcess, tasks):
        asked.extend(tasks)
        return original(self, tasks)

    monkeypatch.setattr(InProcess, "figures", figures)
    return asked
