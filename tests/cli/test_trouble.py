"""Trouble of the machine, and names with orders in them: one line, exit code 2, no traceback."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import mezzotint as mz

VERSION = [sys.executable, "-m", "mezzotint", "version"]
ORDER = "\x1b]0;mine\x07"


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A disk that takes no larger file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestScarcity:
    @pytest.mark.parametrize("size", [0, 500, 5_000, 20_000])
    @pytest.mark.parametrize("options", [["--plan"], ["--calls", 1]], ids=["plan", "measured"])
    def test_a_full_disk(self, fails, model, uniform: mz.Plan, tmp_path: Path, size, options):
        if options == ["--plan"]:
            uniform.save(tmp_path / "plan.json")
            options = ["--plan", tmp_path / "plan.json"]
        (tmp_path / "work").mkdir()
        with files_of_at_most(size):
            message = fails("quantize", model, "-o", tmp_path / "work" / "out", *options)
        assert "File too large" in message
        assert "make room" in message
        assert not (tmp_path / "work" / "out").exists()

    @pytest.mark.parametrize(
        "error",
        [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 5 GB")],
        ids=["python", "torch"],
    )
    def test_no_memory(self, fails, model, tmp_path: Path, monkeypatch, error: Exception):
        def load(*_, **__):
            raise error

        monkeypatch.setattr("mezzotint.loaded_pipeline.load", load)
        assert fails("quantize", model, "-o", tmp_path / "out").startswith("out of memory; close")

    def test_other_errors_are_bugs_and_stay(self, run, model, tmp_path: Path, monkeypatch):
        def load(*_, **__):
            raise ZeroDivisionError

        monkeypatch.setattr("mezzotint.loaded_pipeline.load", load)
        with pytest.raises(ZeroDivisionError):
            run("quantize", model, "-o", tmp_path / "out")


def told_of(process: subprocess.CompletedProcess[str]) -> list[str]:
    """Lines of standard error but those of the progress, which a busy machine makes."""
    return [line for line in process.stderr.splitlines() if not line.startswith("version: ")]


class TestOutputs:
    def test_a_full_one_is_an_error(self):
        with Path("/dev/full").open("w") as full:
            process = subprocess.run(
                VERSION, stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert process.returncode == 2
        (line,) = told_of(process)
        assert line.startswith("error: the disk is full")

    @pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
    def test_a_closed_one_is_none(self, closed: str):
        process = subprocess.run(
            f'"{sys.executable}" -m mezzotint version {closed}',
            shell=True,
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0
        assert told_of(process) == []


class TestTargets:
    """Targets that cannot be written are told before the work."""

    @pytest.fixture(autouse=True)
    def idle(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("mezzotint.loaded_pipeline.load", None)

    @pytest.mark.parametrize("place", [".", "file/deeper"], ids=["a folder", "below a file"])
    @pytest.mark.parametrize(
        "command",
        [
            ("evaluate", "MODEL", "--reference", "MODEL", "--json"),
            ("bench", "MODEL", "--reference", "MODEL", "--json"),
            ("profile", "MODEL", "--output"),
            ("profile", "MODEL", "--cache"),
        ],
        ids=lambda command: f"{command[0]} {command[-1]}",
    )
    def test_a_file(self, fails, model, tmp_path: Path, command, place: str):
        (tmp_path / "file").write_text("mine")
        arguments = [model if each == "MODEL" else each for each in command]
        message = fails(*arguments, tmp_path / place)
        assert "is a folder; name a file" in message or "is no folder to write to" in message

    def test_pictures(self, fails, model, tmp_path: Path):
        (tmp_path / "file").write_text("mine")
        message = fails("generate", model, "owl", "-o", tmp_path / "file" / "deeper")
        assert "is no folder to write to" in message


class TestNames:
    def plan(self, path: Path, name: str, **fields: object) -> Path:
        layers = {name: {"weight": "int4/channel"}}
        path.write_text(json.dumps({"version": 3, "layers": layers, **fields}))
        return path

    @pytest.mark.parametrize("name", [f"conv{ORDER}", "[/]", "[red]x", "\u202econv"], ids=ascii)
    def test_layers_of_a_plan_are_shown_as_they_are(self, run, tmp_path: Path, name: str):
        path = self.plan(tmp_path / "plan.json", name, model=name)
        result = run("plan", "show", path)
        assert result.exit_code == 0
        assert "\x1b" not in result.stdout
        assert "\u202e" not in result.stdout
        shown = name.replace("\x1b", r"\x1b").replace("\x07", r"\x07").replace("\u202e", r"\u202e")
        assert shown in result.stdout
        assert run("plan", "diff", path, path).exit_code == 0

    def test_errors_obey_none(self, fails, tmp_path: Path):
        message = fails("plan", "show", tmp_path / f"plan{ORDER}")
        assert r"\x1b]0;mine\x07" in message
        assert "\x1b" not in message

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ('{"version": true, "layers": {}}', "field version"),
            ('{"version": 3, "layers": {}, "layers": {}}', "the key 'layers' stands twice"),
            ('{"version": 3, "layers": {"a": {}, "a": {}}}', "the key 'a' stands twice"),
        ],
    )
    def test_a_plan_says_each_thing_once(self, fails, tmp_path: Path, text: str, why: str):
        (tmp_path / "plan.json").write_text(text)
        assert why in fails("plan", "show", tmp_path / "plan.json")
