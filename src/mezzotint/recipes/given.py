"""Arguments that were given in another form or order, and the right call."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Real
from pathlib import Path
from typing import Any, cast

from mezzotint.errors import UsageError
from mezzotint.models import Sampling, check_pipeline
from mezzotint.plan import Budget, Plan
from mezzotint.recipes.job import recipes


def check_quantize(pipe: Any, recipe: Any, budget: Any, sampling: Any) -> None:
    """Refuse arguments of `quantize` that are of another kind.

    Raises:
        UsageError: with the call that does what is meant.
    """
    check_pipeline(pipe)
    check_recipe(recipe)
    check_budget(budget)
    check_sampling(sampling)


def check_sweep(pipe: Any, recipe: Any, sampling: Any) -> None:
    """Refuse arguments of `sweep` that are of another kind.

    Raises:
        UsageError: with the call that does what is meant.
    """
    check_pipeline(pipe)
    match recipe:
        case Budget() | Real():
            raise UsageError(
                "recipe: is a budget; give all of them in one list: sweep(pipe, [3, 4])"
            )
        case Sampling():
            raise UsageError("recipe: is a Sampling; give sweep(pipe, budgets, sampling=...)")
    check_sampling(sampling)


def several_budgets(values: Any) -> tuple[Budget, ...]:
    """The budgets of a sweep; a number stands for that many bits per weight.

    Raises:
        UsageError: they are of another kind; with the call that does what is meant.
        BudgetError: a number is out of its domain.
    """
    match values:
        case Budget():
            raise UsageError("budgets: is a Budget; give a list: sweep(pipe, [Budget(...)])")
        case str():
            raise UsageError(f"budgets: is {values!r}; give sweep(pipe, [{_budget(values)}])")
        case Real():
            raise UsageError(f"budgets: is {values}; give a list: sweep(pipe, [{values}])")
    if not isinstance(values, Iterable):
        kind = type(values).__name__
        raise UsageError(f"budgets: is a {kind}; give a list, such as sweep(pipe, [3, 4])")
    return tuple(map(_one_of_several, values))


def _one_of_several(value: Any) -> Budget:
    match value:
        case Budget():
            return value
        case str():
            raise UsageError(f"budgets: one is {value!r}; give {_budget(value)}")
        case None | bool():
            raise UsageError(f"budgets: one is {value}; give Budget(weight_bits=4), or 4 for that")
        case Real():
            return Budget(weight_bits=cast("float", value))
    kind = type(value).__name__
    raise UsageError(f"budgets: one is a {kind}; give Budget(weight_bits=4), or 4 for that")


def check_apply(pipe: Any, plan: Any, sampling: Any) -> None:
    """Refuse arguments of `apply` and `tune` that are of another kind.

    Raises:
        UsageError: with the call that does what is meant.
    """
    check_pipeline(pipe)
    _check_plan(plan)
    check_sampling(sampling)


def check_recipe(value: Any) -> None:
    """Refuse what stands in the recipe's place, but is none; names and options are told later.

    Raises:
        UsageError: with the call that does what is meant.
    """
    match value:
        case Budget():
            raise UsageError("recipe: is a Budget; give quantize(pipe, budget=...)")
        case Sampling():
            raise UsageError("recipe: is a Sampling; give quantize(pipe, sampling=...)")
        case Plan():
            raise UsageError("recipe: is a Plan; give apply(pipe, plan)")
        case int() | float() if type(value) is not bool:
            raise UsageError(f"recipe: is {value}; give quantize(pipe, budget={_budget(value)})")
        case type() if value in {each.options for each in recipes()}:
            name = value.__name__
            raise UsageError(f"recipe: is the class {name}; give its options: {name}()")


def check_budget(value: Any) -> None:
    """Refuse what stands in the budget's place, but is none.

    Raises:
        UsageError: with the call that does what is meant.
    """
    if value is None or isinstance(value, Budget):
        return
    match value:
        case int() | float() | str() if type(value) is not bool:
            raise UsageError(f"budget: is {value!r}; give {_budget(value)}")
    raise UsageError(f"budget: is a {type(value).__name__}; give Budget(weight_bits=4)")


def check_sampling(value: Any) -> None:
    """Refuse what stands in the sampling's place, but is none.

    Raises:
        UsageError: with the call that does what is meant.
    """
    if value is None or isinstance(value, Sampling):
        return
    match value:
        case str() | list() | tuple():
            raise UsageError(f"sampling: is a {type(value).__name__}; give Sampling(prompts=...)")
    raise UsageError(f"sampling: is a {type(value).__name__}; give a Sampling")


def _check_plan(value: Any) -> None:
    match value:
        case Plan():
            return
        case str() | Path():
            raise UsageError(f"plan: is {str(value)!r}; give Plan.load({str(value)!r})")
    plan = getattr(value, "plan", None)
    if isinstance(plan, Plan):
        raise UsageError(f"plan: is a {type(value).__name__}; give its plan: .plan")
    raise UsageError(f"plan: is a {type(value).__name__}; give a Plan, such as a result's .plan")


def _budget(value: Any) -> str:
    """The budget that is meant by a number or text."""
    if not isinstance(value, str):
        return f"Budget(weight_bits={value})"
    names = {each.name for each in recipes()}
    return "Budget(weight_bits=4)" if value in names else f"Budget(size={value!r})"
