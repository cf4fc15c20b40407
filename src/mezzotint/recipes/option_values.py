"""A recipe's options as text: how they are listed, and how they are read."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from mezzotint.errors import FormatError, UsageError
from mezzotint.formats import RangeSearch
from mezzotint.plan import CallSelection, search_named, search_text
from mezzotint.recipes.job import Recipe

_ANY_TYPE = ConfigDict(arbitrary_types_allowed=True)
"""Options may also take objects that have no text, beside what has."""


@dataclass(frozen=True)
class OptionHelp:
    """One field of a recipe's options, as a user reads and writes it."""

    name: str
    default: str
    text: str

    @property
    def flag(self) -> str:
        """On the command line."""
        return f"--{self.name.replace('_', '-')}"


def options_help(recipe: Recipe) -> tuple[OptionHelp, ...]:
    """Every option of a recipe, with its default and what its docstring says of it."""
    texts = _attribute_texts(recipe.options)
    defaults = recipe.options()
    return tuple(
        OptionHelp(field.name, _shown(getattr(defaults, field.name)), texts.get(field.name, ""))
        for field in dataclasses.fields(recipe.options)
    )


def selected_calls(calls: int | None) -> CallSelection | None:
    """The selection of a recipe's option `calls`: that many at most, or all for None.

    Raises:
        UsageError: there are less than 1, or too many.
    """
    return None if calls is None else CallSelection(calls)


def parse_options(recipe: Recipe, values: Mapping[str, str]) -> Any:
    """The recipe's options, with the given fields read from text and defaults for the others.

    Lists are separated by commas, `none` stands for no value, `minmax` and `mse` name range
    searches.

    Raises:
        UsageError: the recipe has no such option, or the text is not a value of it.
    """
    hints = typing.get_type_hints(recipe.options)
    read: dict[str, Any] = {}
    for name, text in values.items():
        if name not in hints:
            known = ", ".join(option.flag for option in options_help(recipe)) or "none"
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag}: recipe {recipe.name!r} has no such option; it has: {known}")
        read[name] = _value(name, text, hints[name])
    return recipe.options(**read)


def _value(name: str, text: str, hint: Any) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(None) in kinds and text.lower() == "none":
        return None
    if RangeSearch in kinds:
        try:
            return search_named(text)
        except FormatError as cause:
            raise UsageError(f"{name}: {cause}") from cause
    listed = any(typing.get_origin(kind) is tuple for kind in kinds)
    try:
        raw = [part.strip() for part in text.split(",") if part.strip()] if listed else text
        return TypeAdapter(hint, config=_ANY_TYPE).validate_python(raw)
    except ValidationError as cause:
        raise UsageError(f"{name}: {text!r}: {cause.errors()[0]['msg']}") from cause


def _shown(value: Any) -> str:
    if isinstance(value, RangeSearch):
        return search_text(value)
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _attribute_texts(options: type[Any]) -> dict[str, str]:
    """Field → its text in the docstring's `Attributes:` section."""
    lines = inspect.cleandoc(options.__doc__ or "").partition("Attributes:\n")[2].splitlines()
    texts: dict[str, str] = {}
    name = ""
    for line in lines:
        if found := re.fullmatch(r"    (\w+): (.*)", line):
            name, texts[found[1]] = found[1], found[2]
        elif name and line.startswith("        "):
            texts[name] += f" {line.strip()}"
    return texts
