"""Code of the pages, as type checkers see it in the editor of somebody who copies it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, blocks, name_of

FOR_EXTENSIONS = {
    "CONTRIBUTING.md",
    "docs/extending.md",
    "docs/formats.md",
    "docs/graph.md",
    "docs/labels.md",
    "docs/predictors.md",
    "docs/streaming.md",
}
"""Pages for people who write parts of their own: fragments, functions without annotations."""

UNTYPED_LIBRARIES = {"docs/load.md"}
"""Pages that call functions of diffusers without annotations, which mypy minds when strict."""

SKIPPED = """disallow_subclassing_any = False
[mypy-torch.*,diffusers.*,transformers.*,numpy.*,scipy.*,openvino.*,ray.*,sklearn.*,pydantic.*]
follow_imports = skip
ignore_missing_imports = True
"""
"""Settings that leave out what takes most of the time: the annotations of large libraries."""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder with a module for the code of each page."""
    for page in PAGES:
        text = "\n".join(blocks(page, "python"))
        if text and name_of(page) not in FOR_EXTENSIONS | UNTYPED_LIBRARIES:
            (tmp_path / f"{page.stem.lower().replace('-', '_')}_page.py").write_text(text, "utf-8")
    return tmp_path


def complaints_of_mypy(code: Path, settings: str) -> list[str]:
    (code / "mypy.ini").write_text(f"[mypy]\nstrict = True\nfollow_imports = silent\n{settings}")
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=mypy.ini", "--cache-dir=cache", "."],
        cwd=code,
        env={**os.environ, "MYPYPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not found.stderr
    assert "checked" in found.stdout or "no issues" in found.stdout
    return [line for line in found.stdout.splitlines() if "error:" in line]


def test_mypy_has_nothing_against_the_pages_but_against_misspelt_recipes(code: Path):
    (code / "misspelt.py").write_text(
        'import mezzotint as mz\n\npipe = mz.load("owl")\nmz.quantize(pipe, "mixqd")\n'
    )
    (complaint,) = complaints_of_mypy(code, SKIPPED)
    assert complaint.startswith("misspelt.py:4")
    assert "mixdq" in complaint


@pytest.mark.thorough
def test_mypy_has_nothing_against_the_pages_with_all_libraries_read(code: Path):
    assert complaints_of_mypy(code, "") == []


@pytest.mark.thorough
def test_pyright_has_nothing_against_the_pages(code: Path):
    settings = {"extraPaths": [str(ROOT / "src")], "typeCheckingMode": "standard"}
    (code / "pyrightconfig.json").write_text(json.dumps(settings))
    found = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--outputjson"],
        cwd=code,
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(found.stdout)
    assert report["summary"]["filesAnalyzed"] > 5
    assert [each for each in report["generalDiagnostics"] if each["severity"] == "error"] == []
