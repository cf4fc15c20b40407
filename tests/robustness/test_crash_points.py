"""A save that is killed anywhere leaves the old result whole, or the new one."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from mezzotint._durable import EXCHANGE_EVENT
from tests import fuzzing
from tests.docs.pages import ROOT
from tests.robustness import crash_points
from tests.robustness.crash_points import KILLED, OUTPUT

REPLACED = ("nothing", "in one step", "by two renames")
EVERYTHING = settings.default.max_examples > fuzzing.USUAL
"""True where no event is left out."""


@dataclass(frozen=True)
class Campaign:
    """Events of a save, what every kill of it left, and the folder that was worked in."""

    events: list[list[str]]
    kills: list[dict[str, Any]]
    work: Path


def most(kind: str, replaced: str) -> int:
    """Events to kill at; 0 for all."""
    if kind == "quantize":
        return 68 if EVERYTHING else 1
    if EVERYTHING or (kind in ("folder", "measured") and replaced == "in one step"):
        return 0
    return 8 if kind in ("folder", "measured") else 4


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Campaign]:
    """Kill a save of some kind, in some situation; what was done once is not done again."""

    @functools.cache
    def run(kind: str, replaced: str) -> Campaign:
        folder = tmp_path_factory.mktemp(kind)
        arguments = [kind, str(folder), replaced, str(most(kind, replaced))]
        process = subprocess.run(
            [sys.executable, "-m", crash_points.__name__, *arguments],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        return Campaign(**json.loads(process.stdout.splitlines()[-1]), work=folder / "work")

    return run


def check(found: Campaign, replaced: str) -> None:
    """Every kill hit; old or new is whole at once, and the new one after a repetition."""
    assert found.kills
    for kill in found.kills:
        assert kill["code"] == KILLED, kill
        whole = kill["output"] in ("old", "new")
        assert whole or (replaced == "by two renames" and kill["former"]), kill
        assert kill["again"] == 0, kill
        assert kill["output again"] == "new", kill
        assert kill["beside"] == [OUTPUT], kill


@pytest.mark.parametrize("replaced", REPLACED)
def test_a_folder(campaign, replaced: str):
    found, whole = campaign("folder", replaced), most("folder", replaced) == 0
    assert len(found.events) > 20
    assert len(found.kills) == len(found.events) or not whole
    check(found, replaced)
    assert {kill["output"] for kill in found.kills} >= {"old", "new"} or not whole


@pytest.mark.parametrize("replaced", REPLACED)
def test_a_journal_is_there_until_the_result_is(campaign, replaced: str):
    found = campaign("measured", replaced)
    check(found, replaced)
    measured = next(kill["event"] for kill in found.kills if kill["journal"])
    for kill in found.kills:
        assert kill["event"] < measured or kill["journal"] or kill["output"] == "new", kill


@pytest.mark.parametrize("kind", ["pipeline", "packing"])
def test_a_pipeline(campaign, kind: str):
    found = campaign(kind, "in one step")
    assert len(found.events) > 60
    check(found, "in one step")


def test_a_run_of_the_command_ends_in_the_same_bytes(campaign):
    """Killed while it measures, and while it saves; measurements are part of the result."""
    found = campaign("quantize", "nothing")
    assert len(found.events) > 200
    check(found, "nothing")


@pytest.mark.parametrize("kind", ["folder", "measured", "pipeline", "packing"])
def test_everything_is_on_disk_before_it_has_its_name(campaign, kind: str):
    """A power cut may lose whatever no sync has been asked for."""
    found = campaign(kind, "in one step")
    names = [name for name, _ in found.events]
    moved = names.index(EXCHANGE_EVENT)
    temporary = Path(found.events[moved][1])
    output = found.work / OUTPUT
    written = max(i for i, name in enumerate(names[:moved]) if name in ("open", "serialized"))
    synced = {path for name, path in found.events[written:moved] if name == "os.fsync"}
    below = [each.relative_to(output) for each in output.rglob("*")]
    assert synced >= {str(temporary), *(str(temporary / each) for each in below)}
    assert found.events[moved + 1] == ["os.fsync", str(output.parent)]


def test_the_journal_goes_after_the_result_has_come(campaign):
    found = campaign("measured", "in one step")
    names = [name for name, _ in found.events]
    journal = str(found.work / f"{OUTPUT}.journal.jsonl")
    gone = found.events.index(["os.remove", journal])
    named = found.events.index(["os.fsync", str(found.work)], names.index(EXCHANGE_EVENT))
    assert named < gone
    assert ["os.fsync", journal] in found.events[:named]
