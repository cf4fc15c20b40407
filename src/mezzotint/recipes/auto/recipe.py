"""The default recipe: calibrate, probe, allocate, verify, exchange, tune, pack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mezzotint.calibration import plan_moments
from mezzotint.errors import UsageError
from mezzotint.measuring import Measurements
from mezzotint.plan import Plan
from mezzotint.recipes.auto.allocation import allocated
from mezzotint.recipes.auto.bias import with_biases
from mezzotint.recipes.auto.check import Checked, checked
from mezzotint.recipes.auto.exchanges import exchanged
from mezzotint.recipes.auto.joint import joint_options
from mezzotint.recipes.auto.options import Auto
from mezzotint.recipes.auto.preparation import prepared
from mezzotint.recipes.auto.quality import missed, reaching
from mezzotint.recipes.auto.refit import refitted
from mezzotint.recipes.auto.search import Search
from mezzotint.recipes.distillation import distilling
from mezzotint.recipes.job import Job, Outcome, register_recipe
from mezzotint.recipes.smoothed_by_norms import smoothed_by_norms
from mezzotint.recipes.study import Study
from mezzotint.runtime import Calibration, EncodedWeights

TUNED = "scales, biases and norms were trained after all else was measured"
"""Note in plans."""


@register_recipe(
    "auto",
    "find what every layer bears, then spend the bytes where they matter",
    Auto,
    takes_latency=True,
    takes_components=True,
)
def auto(job: Job, options: Auto) -> Outcome:
    """Exact allocation of weights and inputs over what each of them alone costs.

    Noise of independent small errors adds up, so the program minimises Σ noise of the chosen
    formats within the limits of the budget. Probes predict each noise; what they leave in doubt
    is measured, and so is the plan that comes of it. Exchanges then look at what sums leave out:
    errors of different layers that cancel. Corrected biases are kept where they help. All that is
    judged on samples that error feedback has not seen; what is stored is fitted to all. In the end
    scales, biases and norms are trained, where that is asked for.
    """
    options = joint_options(job, options)
    if options.tuning is None:
        return found_plan(job, options)
    with distilling(job, options.tuning, "tune_minutes") as distilled:
        found = found_plan(job, options)
        tuned = distilled(found)
    if tuned.training is None:
        return tuned
    notes = [*found.plan.context["notes"], TUNED]
    plan = replace(tuned.plan, context={**tuned.plan.context, "notes": notes})
    return replace(tuned, plan=plan)


def found_plan(job: Job, options: Auto) -> Outcome:
    """The plan, calibrated; nothing of it is trained."""
    return studied_plan(job, options)[0]


def studied_plan(job: Job, options: Auto) -> tuple[Outcome, Study]:
    """The same, and the study of the denoiser that it goes by."""
    goal = job.budget.decibels
    if goal is not None and options.refit is not None:
        raise UsageError("refit: keeps to bytes; leave quality out with it")
    with prepared(job, options) as begun:
        within, how = (begun, {}) if goal is None else reaching(begun, goal)
        search, plan, measurements = searched(within)
    if goal is not None:
        plan = with_goal(plan, goal, how)
    calibration = final_calibration(search, plan)
    outcome = Outcome(plan, calibration, measurements, search.measuring.journal.record)
    return outcome, search.study


def searched(begun: Search) -> tuple[Search, Plan, Measurements]:
    """The plan of the search's budget; what it was encoded by, and figures of all candidates."""
    if begun.options.refit is not None:
        search, found = refitted(begun, Path(begun.options.refit))
        return search, plan_of(search, checked(search, found)), search.measurements(found.losses)
    found = allocated(begun)
    search = begun.clipped(found.clips)
    # Exchanges lower noise, whichever layer it comes from: they know nothing of labels.
    if search.options.exchanges and found.probes and not search.lesson.emphasis:
        found = exchanged(search, found)
    if search.tries_biases:
        search, found = with_biases(search, found)
    return search, plan_of(search, checked(search, found)), search.measurements(found.losses)


def with_goal(plan: Plan, goal: float, how: Mapping[str, object]) -> Plan:
    """The plan, whose context says how the goal was reached, or that it was missed after all."""
    note = missed(plan.context.get("measured_sqnr_db"), goal)
    notes = [*plan.context["notes"], *([] if note is None else [note])]
    return replace(plan, context={**plan.context, "goal": dict(how), "notes": notes})


def final_calibration(search: Search, plan: Plan) -> Calibration:
    """The values that the plan is stored with: moments of all recorded samples."""
    found, study = search.calibration.under(plan.choices), search.study
    if not search.samples.apart:
        return found
    moments = plan_moments(study.job.denoiser, plan, study.calls, found.tensors)
    return replace(found, moments=moments, encoded=EncodedWeights())


def plan_of(search: Search, checked: Checked) -> Plan:
    """The plan with its reasons, and how it came to be."""
    study, structures = search.study, search.study.structures
    choices = study.restrictions.completed(checked.found.choices, study.names)
    reasons = {
        name: why
        for name, why in structures.reasons().items()
        if name in structures.by_layer and choices[name].quantized
    }
    told = (
        *search.smoothed.reasons(checked.found.choices).items(),
        *checked.reasons.items(),
        *study.restrictions.reasons(study.names).items(),
    )
    for name, why in told:
        reasons[name] = f"{reasons[name]}; {why}" if name in reasons else why
    if search.options.smoothing_norms:
        choices = smoothed_by_norms(choices, study.graph)
    notes = [*study.structures.notes, *checked.found.notes]
    plan = study.settled(search.plan(choices))
    latency = {} if search.timed is None else search.timed.context(plan)
    return replace(
        plan,
        reasons=reasons,
        context={
            **study.context(),
            "recipe": "auto",
            **checked.context,
            **search.lesson.context,
            "notes": notes,
            **latency,
        },
    )
