"""Options and budget of `quantize --plan BASE --refit`."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from mezzotint.errors import UsageError


def refitting(options: Any, base: Path, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The recipe's options with the base, and the budget's fields: the base's where none is given.

    Args:
        options: of the recipe.
        base: plan or folder of the base model's result.
        given: fields of the budget.

    Raises:
        UsageError: the recipe is another than auto, or the base's plan names no limit.
        PlanError: there is no plan.
    """
    from mezzotint.checkpoint import read_plan
    from mezzotint.recipes import Auto

    if not isinstance(options, Auto):
        raise UsageError("--refit: is for recipe auto; leave --recipe out, or --refit")
    options = dataclasses.replace(options, refit=str(base))
    found = read_plan(base).context.get("budget")
    asked = found if isinstance(found, dict) else {}
    limits = ("weight_bits", "size", "pipeline_size", "latency")
    if not any(name in given for name in limits):
        own = {name: asked[name] for name in limits if asked.get(name) is not None}
        if not own:
            raise UsageError(
                f"--refit: {base} was made for no bits, size or latency; give one, such as "
                "--weight-bits 4"
            )
        given = own | given
    if asked.get("act_bits") is not None:
        given = {"act_bits": asked["act_bits"]} | given
    return options, given
