"""Plans of several budgets, measured once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mezzotint._journal import Record
from mezzotint.errors import UsageError
from mezzotint.plan import Budget, Plan
from mezzotint.recipes.auto.joint import joint_options
from mezzotint.recipes.auto.options import Auto
from mezzotint.recipes.auto.preparation import prepared
from mezzotint.recipes.auto.recipe import searched
from mezzotint.recipes.costs import choice_bytes, floating_bytes
from mezzotint.recipes.job import Job
from mezzotint.recipes.study import Study


@dataclass(frozen=True)
class BudgetedPlan:
    """The plan of one of several budgets.

    Attributes:
        budget: what was asked for.
        plan: as the recipe finds it for that budget alone.
        denoiser_bytes: stored bytes of the whole denoiser, or of all components quantized.
        weight_bits: stored bits per weight, averaged over the quantized layers.
        record: all that has been measured so far.
    """

    budget: Budget
    plan: Plan
    denoiser_bytes: int
    weight_bits: float
    record: Record


def plans_of(
    job: Job, options: Auto, budgets: Sequence[Budget], profile: str | None = None
) -> Iterator[BudgetedPlan]:
    """Find the plan of each budget; what one of them has measured serves the others.

    Args:
        job: its own budget does not count.
        options: of the recipe, without training.
        budgets: which differ in bytes alone. Those that cannot be met are refused before anything
            is measured.
        profile: as of `prepared`.

    Raises:
        UsageError: there are none, or they differ in more; or several components cannot have an
            option.
        InfeasibleBudgetError: one cannot be met; names the nearest that can.
    """
    _check(budgets, options)
    job = replace(job, budget=budgets[0])
    asked = joint_options(job, options)
    with prepared(job, asked, profile, budgets=len(budgets)) as begun:
        searches = [begun.under(budget) for budget in budgets]
        for budget, search in zip(budgets, searches, strict=True):
            _, plan, _ = searched(search)
            weights = _weight_bytes(begun.study, plan)
            record = begun.measuring.journal.record
            yield BudgetedPlan(
                budget,
                plan,
                weights + floating_bytes(job.denoiser, begun.study.layers),
                8 * weights / sum(layer.parameters for layer in begun.study.layers),
                record,
            )


def _weight_bytes(study: Study, plan: Plan) -> int:
    return sum(choice_bytes(layer, plan[layer.name], study.weight(layer)) for layer in study.layers)


def _check(budgets: Sequence[Budget], options: Auto) -> None:
    if not budgets:
        raise UsageError("budgets: none given; give at least one")
    if any(each.quality is not None for each in budgets):
        raise UsageError("budgets: one has a quality, of which bytes follow; quantize for that")
    if any(each.pipeline_size is not None for each in budgets):
        raise UsageError("budgets: one has a pipeline_size; give sizes of what is quantized")
    if len({(each.act_bits, each.latency) for each in budgets}) > 1:
        raise UsageError(
            "budgets: differ in act_bits or latency; sweep bytes, one of these at once"
        )
    twice = next((each for each in budgets if budgets.count(each) > 1), None)
    if twice is not None:
        raise UsageError(f"budgets: {twice} is given twice; leave one out")
    if options.tuning is not None:
        raise UsageError(
            "tune_minutes, tune_steps: plans of several budgets are not trained; tune the one that "
            "you choose"
        )
    if options.metric != "noise":
        raise UsageError("metric: plans of several budgets are compared by noise; leave it out")
