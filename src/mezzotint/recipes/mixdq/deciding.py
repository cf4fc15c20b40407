"""Choice of widths: solve every division of the budget, and let the images choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mezzotint.recipes.mixdq.joint import fit_weights, random_widths
from mezzotint.recipes.mixdq.method import Method
from mezzotint.recipes.mixdq.options import MixDQ
from mezzotint.recipes.mixdq.programs import ALIKE, Programs, Widths
from mezzotint.recipes.mixdq.selection import Choices, image_errors, nearest, refuse_ruined

JOINT_ROUNDS = 3
"""The unit of the joint program is fitted again with the plans that it led to."""


@dataclass(frozen=True)
class Decision:
    """The width of every layer, and how it was come by, as JSON values."""

    widths: Widths
    summary: Mapping[str, object]


def decide(
    method: Method, programs: Programs, choices_of: Callable[[Widths], Choices], base: float = 0.0
) -> Decision:
    """Solve the programs as the options say.

    Args:
        method: compares candidates.
        programs: of the weights, or of the inputs.
        choices_of: the choices of all layers under some widths.
        base: image error before any of these widths is taken.

    Raises:
        InfeasibleBudgetError: the average cannot be kept to.
        CalibrationError: no candidate makes finite images.
    """
    programs.check()
    if programs.unlimited():
        return everything(programs)
    if method.options.split == "joint":
        return _jointly(method, programs, choices_of, base)
    candidates = _candidates(method.options, programs)
    index, errors = nearest(method, [choices_of(widths) for widths in candidates])
    summary: dict[str, object] = {"candidates": len(candidates)}
    if errors:
        summary |= {"image_mse": min(errors), "worst_image_mse": max(errors)}
    return Decision(candidates[index], summary | {"average": _average(programs, candidates[index])})


def check_feasible(options: MixDQ, programs: Programs) -> None:
    """Raise InfeasibleBudgetError where no widths keep to the budget; scores do not matter."""
    programs.check()
    if programs.unlimited():
        return
    if options.split == "joint":
        programs.joint(ALIKE)
    else:
        _candidates(options, programs)


def _candidates(options: MixDQ, programs: Programs) -> tuple[Widths, ...]:
    if options.metric == "sqnr":
        return programs.single()
    return programs.even() if options.split == "none" else programs.swept()


def everything(programs: Programs) -> Decision:
    """The widest candidates, for a budget that admits them."""
    average = _average(programs, programs.widest)
    return Decision(programs.widest, {"candidates": 1, "average": average})


def _jointly(
    method: Method, programs: Programs, choices_of: Callable[[Widths], Choices], base: float
) -> Decision:
    """One program; its unit is fitted on random plans, then on those it proposes itself."""
    refuse_ruined(method, [base])
    plans = list(random_widths(programs.layers, method.options.joint_plans))
    found = image_errors(method, list(map(choices_of, plans)), "Finding the unit")
    errors = [error - base for error in found]
    proposed: dict[int, float] = {}
    for _ in range(JOINT_ROUNDS):
        weights = fit_weights(programs.layers, plans, errors)
        (widths,) = programs.joint(weights)
        if widths in plans:
            proposed.setdefault(plans.index(widths), errors[plans.index(widths)])
            break
        plans.append(widths)
        errors.append(image_errors(method, [choices_of(widths)])[0] - base)
        proposed[len(plans) - 1] = errors[-1]
    refuse_ruined(method, list(proposed.values()))
    best = min(proposed, key=lambda index: proposed[index])
    summary = {
        "candidates": len(plans),
        "image_mse": errors[best] + base,
        "unit": {str(group): weight for group, weight in weights.items()},
        "average": _average(programs, plans[best]),
    }
    return Decision(plans[best], summary)


def _average(programs: Programs, widths: Widths) -> float:
    return programs.group(list(programs.layers)).average(widths)
