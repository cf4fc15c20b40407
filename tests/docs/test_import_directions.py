"""Imports go in the directions that docs/architecture.md allows."""

import ast
import re

import pytest

from mezzotint._plugins import BUILT_IN
from tests.docs.pages import ROOT

SOURCE = ROOT / "src" / "mezzotint"


def allowed():
    """Package → what it may import, from the table of the page."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table: dict[str, set[str]] = {}
    for name, knows in re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", page, re.MULTILINE):
        words = set(re.findall(r"\w+", knows))
        table[name] = (set(table) if words == {"all", "above"} else words) | {name}
        assert table[name] <= {*table}, f"{name} knows a package below it"
    return table


ALLOWED = allowed()


def owner(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(tree):
    """Dotted names of imported modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module == "mezzotint":
                yield from (f"mezzotint.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)


def modules(package):
    return [path for path in SOURCE.rglob("*.py") if owner(path) == package]


def test_the_table_lists_every_package():
    code = {owner(path) for path in SOURCE.rglob("*.py")} - {"__init__", "__main__"}
    assert code == set(ALLOWED)


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_it_may_know(package):
    for path in modules(package):
        for name in imported(ast.parse(path.read_text("utf-8"))):
            parts = name.split(".")
            if parts[0] == "mezzotint":
                assert parts[1] in ALLOWED[package], f"{path} imports {name}"


def named_in_strings(path):
    """Modules of this package that its code names in strings, as for `import_module`."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Constant(str(text)) if re.fullmatch(r"mezzotint(\.\w+)+", text):
                yield text


def test_strings_name_packages_below_in_two_modules_only():
    hidden = {
        owner(path)
        for path in SOURCE.rglob("*.py")
        if owner(path) in ALLOWED
        for name in named_in_strings(path)
        if name.split(".")[1] not in ALLOWED[owner(path)]
    }
    assert hidden == {"_plugins", "_registration"}


@pytest.mark.parametrize(("kind", "package"), BUILT_IN.items())
def test_a_package_of_built_in_things_registers_some_when_it_is_imported(kind, package):
    folder = SOURCE.joinpath(*package.split(".")[1:])
    texts = [path.read_text("utf-8") for path in folder.rglob("*.py")]
    call = rf"^@?register_\w*{kind.removesuffix('s')}\b"
    assert any(re.search(call, text, re.MULTILINE) for text in texts)


@pytest.mark.parametrize("library", ["torch", "diffusers", "transformers"])
def test_allocation_knows_numbers_only(library):
    for path in modules("allocation"):
        names = imported(ast.parse(path.read_text("utf-8")))
        assert library not in {name.split(".")[0] for name in names}, path


HEAVY = {"torch", "diffusers", "transformers", "numpy", "scipy", "PIL"}
LIGHT = {
    "mezzotint.cli",
    "mezzotint.errors",
    "mezzotint._files",
    "mezzotint._locks",
    "mezzotint._printable",
    "mezzotint._progress",
    "mezzotint._scarcity",
    "mezzotint._tables",
}


def test_the_command_line_defers_heavy_imports():
    for path in modules("cli"):
        body = ast.parse(path.read_text("utf-8")).body
        at_once = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        for name in imported(ast.Module(at_once, [])):
            assert name.split(".")[0] not in HEAVY, f"{path} imports {name}"
            if name.startswith("mezzotint"):
                assert ".".join(name.split(".")[:2]) in LIGHT, f"{path} imports {name}"
