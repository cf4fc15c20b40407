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
        UsageError: the recipe is another than auto, or the base's plan names no budget.
        PlanError: there is no plan.
    """
    from mezzotint.checkpoint import read_plan
    from mezzotint.recipes import Auto

    if not isinstance(options, Auto):
        raise UsageError("--refit: is for recipe auto; leave --recipe out, or --refit")
    options = dataclasses.replace(options, refit=str(base))
    asked = read_plan(base).context.get("budget")
    if not isinstance(asked, dict):
        if given:
            return options, given
        raise UsageError(f"--refit: {base} names no budget; give one, such as --weight-bits 4")
    limits = ("weight_bits", "size", "latency")
    known = {name: asked.get(name) for name in (*limits, "act_bits")}
    own = {name: value for name, value in known.items() if value is not None}
    if any(name in given for name in limits):  # another size, say, in the place of all limits
        own = {"act_bits": own["act_bits"]} if "act_bits" in own else {}
    return options, own | given
