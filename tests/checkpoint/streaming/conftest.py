"""A floating-point pipeline on disk, for packing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.models import tiny


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion with all that may lie beside it; read only."""
    folder = tiny.save_few_step(tmp_path_factory.mktemp("streaming") / "tiny")
    (folder / "prompts.txt").write_text("owl\n")
    (folder / "NOTICE").write_text("Drawn by nobody.\n")
    return folder


@pytest.fixture
def damaged(pipeline: Path, tmp_path: Path) -> Path:
    """A copy, for tests that damage it."""
    return shutil.copytree(pipeline, tmp_path / "input" / "damaged")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Target of the result; the folder around it is the test's business."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work" / "packed"
