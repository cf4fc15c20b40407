"""`mezzotint recipes`."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from mezzotint.cli._app import app, examples
from mezzotint.cli._arguments import AsJson
from mezzotint.cli._output import show


@app.command(epilog=examples("recipes", "recipes mixdq", "recipes mixdq --json"))
def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="List the options of this recipe.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the ways to find a plan, or the options of one of them.

    Options are given to `mezzotint quantize --recipe NAME` as `--option value`; switches also as
    `--option` and `--no-option`, lists with commas.
    """
    from mezzotint.cli.tables import options_table, recipes_table
    from mezzotint.recipes import options_help, recipe_named
    from mezzotint.recipes import recipes as registered

    if name is None:
        rows = [{"name": each.name, "summary": each.summary} for each in registered()]
        show(rows, [recipes_table(rows)], as_json=as_json)
        return
    options = options_help(recipe_named(name))
    value = [dataclasses.asdict(option) | {"flag": option.flag} for option in options]
    show(value, [options_table(name, options)], as_json=as_json)
