"""Docstrings begin with a full sentence or a noun phrase, and the README is short."""

import ast
import re

import pytest

from tests.docs.pages import ROOT

SOURCE = ROOT / "src" / "mezzotint"
MODULES = sorted(SOURCE.rglob("*.py"))
FRAGMENT = re.compile(
    r"(What|Of|That|How|Whether|Who|As|Where|Why|Which|When|From|By|To|With|Without)\b"
)
"""First words of clauses without a main one, such as "What a layer reads."."""


def docstrings(path):
    """First line of every string that stands for itself: of modules, classes, functions, fields."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Expr(ast.Constant(str(text))):
                yield f"{node.lineno}: {text.strip().partition(chr(10))[0]}"


def fragments(path):
    return [line for line in docstrings(path) if FRAGMENT.match(line.partition(": ")[2])]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_docstrings_begin_with_a_sentence_or_a_noun(path):
    assert fragments(path) == []


def test_the_readme_takes_five_minutes():
    assert len((ROOT / "README.md").read_text("utf-8").split()) <= 900
