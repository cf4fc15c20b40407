"""The documentation holds true."""

import ast
import importlib
import shlex

import pytest
import typer

import mezzotint as mz
from mezzotint import recipes
from mezzotint.cli import app
from mezzotint.formats import registry
from mezzotint.measuring import executors
from mezzotint.measuring.metrics import metric
from mezzotint.plan import structure_registry
from mezzotint.predictors import predictor
from mezzotint.rounding import roundings
from mezzotint.runtime import kernels
from tests.docs.pages import PAGES, ROOT, blocks, links, name_of


def commands():
    """Every `mezzotint` line of every page."""
    for page in PAGES:
        text = "".join([*blocks(page, "sh"), *blocks(page, "console"), *blocks(page, "bash")])
        for line in text.splitlines():
            words = shlex.split(line.removeprefix("$ ").partition(" > ")[0], comments=True)
            if words[:1] == ["mezzotint"]:
                yield pytest.param(words[1:], id=f"{name_of(page)}: {line}")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for link in links(page):
        path = link.partition("#")[0]
        if path and "://" not in path:
            assert (page.parent / path).exists(), link


def test_every_page_is_listed():
    listed = set(links(ROOT / "docs" / "README.md"))
    assert listed == {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_names_what_exists(page):
    for node in ast.walk(ast.parse("\n".join(blocks(page, "python")))):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "mz":
            assert hasattr(mz, node.attr), ast.unparse(node)


@pytest.mark.parametrize("words", list(commands()))
def test_commands_parse(words):
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name, *words = words
        command = command.commands[name]
    command.make_context("mezzotint", list(words))


@pytest.fixture
def registries(monkeypatch):
    """Whatever a test registers is forgotten afterwards."""
    monkeypatch.setattr(registry, "_PARSERS", list(registry._PARSERS))
    named = structure_registry._STRUCTURES, metric._METRICS, kernels._KERNELS, recipes.job._RECIPES
    for each in (roundings._ROUNDINGS, predictor._PREDICTORS, executors._EXECUTORS, *named):
        monkeypatch.setattr(each, "items", dict(each.items))


def test_the_examples_of_extending_run(registries):
    page = ROOT / "docs" / "extending.md"
    names = {"__name__": "extending"}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)
    assert len(names["result"].plan.quantized) > 0
