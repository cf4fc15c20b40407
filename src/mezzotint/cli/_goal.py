"""Goals of `quantize --goal`: fewest bytes for a quality, least memory, most speed."""

from __future__ import annotations

from typing import Any

from mezzotint.errors import UsageError

SPEED, MEMORY, QUALITY = "speed", "memory", "quality="

_ACT_BITS = {MEMORY: 16.0, SPEED: 8.0}


def limits_of(goal: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """The budget's fields, with what a goal adds to those that are given.

    Args:
        goal: `quality=35dB`, `memory` or `speed`; None for none.
        given: fields of the budget.

    Raises:
        UsageError: the goal is unknown, or contradicts what is given.
    """
    if goal is None:
        return given
    if goal.startswith(QUALITY):
        return given | {"quality": goal.removeprefix(QUALITY)}
    if goal not in _ACT_BITS:
        raise UsageError(f"--goal: is {goal!r}; give quality=35dB, memory or speed")
    inputs = _ACT_BITS[goal]
    if given.get("act_bits", inputs) != inputs:
        raise UsageError(
            f"--goal: {goal} means --act-bits {inputs:g}, and {given['act_bits']:g} are given; "
            "leave one of them out"
        )
    return given | {"act_bits": inputs}
