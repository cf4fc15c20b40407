"""Options, budget and components of `quantize --plan BASE --refit`."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint.errors import UsageError

if TYPE_CHECKING:
    from mezzotint.plan import Plan


@dataclass(frozen=True)
class Refitting:
    """Arguments of `mezzotint.quantize` for a fine-tune.

    Attributes:
        options: of the recipe, with the base, and the base's pins and exclusions where none are
            given.
        budget: fields of the budget: the base's where none is given.
        components: the base's where none are given; None for all denoisers.
    """

    options: Any
    budget: dict[str, Any]
    components: Sequence[str] | None


def refitting(
    options: Any, base: Path, given: dict[str, Any], components: Sequence[str] | None
) -> Refitting:
    """Arguments as they are given, completed by those of the base.

    Args:
        options: of the recipe.
        base: plan or folder of the base model's result.
        given: fields of the budget.
        components: that are named; None for none.

    Raises:
        UsageError: the recipe is another than auto, or the base's plan names no limit.
        PlanError: there is no plan.
    """
    from mezzotint.recipes import Auto
    from mezzotint.recipes.auto.refit_base import base_plan

    if not isinstance(options, Auto):
        raise UsageError("--refit: is for recipe auto; leave --recipe out, or --refit")
    plan = base_plan(base)
    options = dataclasses.replace(
        options,
        refit=str(base),
        pin=options.pin or tuple(plan.context.get("pin", ())),
        exclude=options.exclude or tuple(plan.context.get("exclude", ())),
    )
    return Refitting(options, _budget(plan, base, given), components or plan.components or None)


def _budget(plan: Plan, base: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The fields of the budget, the base's where no limit is given."""
    found = plan.context.get("budget")
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
    return given
