"""`mezzotint plan show` and `mezzotint plan diff`."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from mezzotint.cli._app import app, examples
from mezzotint.cli._arguments import AsJson
from mezzotint.cli._output import show

plan = typer.Typer(
    name="plan",
    help="Read and compare plans: which format every layer takes.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(plan)

PlanPath: TypeAlias = Annotated[
    Path, typer.Argument(metavar="PLAN", help="A plan's JSON file, or a quantized folder.")
]


@plan.command(
    "show", epilog=examples("plan show owl-w4a8", "plan show owl-w4a8 --json > edited.json")
)
def show_plan(path: PlanPath, as_json: AsJson = False) -> None:
    """Print what every layer takes, and how it was calibrated.

    The JSON is the plan itself: edit it and hand it to `mezzotint quantize --plan`.
    """
    from mezzotint.checkpoint import read_plan
    from mezzotint.cli.tables import bits_table, latency_table

    found = read_plan(path)
    tables = [found.table(), found.summary(), *bits_table(found), *latency_table(found)]
    show(found.to_dict(), tables, as_json=as_json)


@plan.command("diff", epilog=examples("plan diff owl-w4a8 owl-w3a8", "plan diff owl-w4a8 my.json"))
def diff_plans(
    left: PlanPath,
    right: PlanPath,
    as_json: AsJson = False,
) -> None:
    """List the layers on which two plans differ, and how they were calibrated otherwise."""
    from mezzotint.checkpoint import read_plan
    from mezzotint.cli.tables import calibration_table, differences_table
    from mezzotint.plan import calibration_diff, diff

    plans = read_plan(left), read_plan(right)
    layers, settings = diff(*plans), calibration_diff(*plans)
    value = {
        "layers": [each.to_dict() for each in layers],
        "calibration": {
            name: dict(zip(("left", "right"), pair, strict=True)) for name, pair in settings.items()
        },
    }
    tables = [differences_table(layers, str(left), str(right))]
    if settings:
        tables.append(calibration_table(settings, str(left), str(right)))
    show(value, tables, as_json=as_json)
