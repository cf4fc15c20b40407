"""No module imports itself by way of others, not even for type checkers."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

SOURCE = ROOT / "src"


def modules(source: Path) -> dict[str, Path]:
    """Dotted name → file."""
    found = {}
    for path in source.rglob("*.py"):
        *folders, last = path.relative_to(source).with_suffix("").parts
        found[".".join(folders if last == "__init__" else [*folders, last])] = path
    return found


def imported(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """The known modules that a file imports: at once, within functions, for type checkers."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            within = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else str(node.module) for name in within]
        else:
            continue
        yield from (name for name in names if name in known)


def cycle(source: Path) -> list[str]:
    """Modules that import each other in a ring; empty where there is none."""
    known = modules(source)
    graph = {name: set(imported(path, known)) - {name} for name, path in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_the_package_has_no_import_cycles():
    assert cycle(SOURCE) == []


@pytest.mark.parametrize(
    "text",
    [
        "import house.b",
        "from house import b",
        "from house.b import thing",
        "def late():\n    from house.b import thing",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.b import Thing",
    ],
    ids=["module", "from-package", "name", "within-a-function", "for-type-checkers"],
)
def test_a_cycle_is_found(tmp_path: Path, text: str):
    house = tmp_path / "house"
    house.mkdir()
    (house / "__init__.py").touch()
    (house / "a.py").write_text(text, "utf-8")
    (house / "b.py").write_text("from house import a\n", "utf-8")
    assert set(cycle(tmp_path)) == {"house.a", "house.b"}
