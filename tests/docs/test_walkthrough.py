"""The walkthrough names what is there."""

import ast
import re

import pytest

from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "walkthrough.md"
NAMED = re.findall(r"\[`([^`]+)`\]\(([^)\s]+\.(?:py|c))\)", PAGE.read_text("utf-8"))


def definitions(body, prefix=""):
    """Dotted names of the classes, functions and methods of a module."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from definitions(node.body, f"{prefix}{node.name}.")


def defined_in(path):
    text = path.read_text("utf-8")
    if path.suffix == ".c":
        return set(re.findall(r"^\w[\w ]*?(\w+)\(", text, re.MULTILINE))
    return set(definitions(ast.parse(text).body))


def test_both_journeys_name_functions():
    assert len(NAMED) > 40


@pytest.mark.parametrize(("name", "file"), sorted(set(NAMED)))
def test_what_it_names_is_there(name, file):
    assert name in defined_in(PAGE.parent / file)
