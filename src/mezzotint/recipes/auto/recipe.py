"""The default recipe: calibrate, probe, allocate, verify, exchange, pack."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from mezzotint.measuring import Measurements, Metric, Noise, chosen_metric, decibels
from mezzotint.plan import Choice, Encoding, Plan
from mezzotint.recipes.auto.candidates import candidate_formats, quantized_share
from mezzotint.recipes.auto.losses import Losses
from mezzotint.recipes.auto.options import Auto
from mezzotint.recipes.auto.program import FLOATING_MACS, chosen, integer_program
from mezzotint.recipes.auto.sensitivity import Candidates, measured, units_of
from mezzotint.recipes.job import Job, Outcome, register_recipe
from mezzotint.recipes.latency import deadline
from mezzotint.recipes.study import Study


@register_recipe(
    "auto",
    "find what every layer bears, then spend the bytes where they matter",
    Auto,
    takes_latency=True,
)
def auto(job: Job, options: Auto) -> Outcome:
    """Exact allocation of weights and inputs over what each of them alone costs.

    Noise of independent small errors adds up, so the program minimises Σ noise of the chosen
    formats within the limits of the budget.
    """
    study = Study.of(job, bos=options.bos, shortcuts=options.shortcuts, momentum=None)
    formats = candidate_formats(job.budget, options)
    candidates = study.structured(formats)
    timed = deadline(study, formats, options.profile, options.profile_batch)
    # Before hours of measuring: can the budget be met at all?
    share = quantized_share(job.budget, options)
    program = integer_program(study, candidates, share, timed)

    calibration, encoding = study.calibrated(candidates), Encoding(options.search)
    metric = chosen_metric(options.metric)
    with study.measuring(calibration, cache_bytes=options.cache_bytes) as measuring:
        units = [unit for name, each in candidates.items() for unit in units_of(name, each)]
        losses = Losses(*measured(measuring, units, metric, encoding))
        solution = program.solve(losses)
    plan = study.settled(plan_of(study, chosen(solution), losses, metric, encoding))
    if timed is not None:
        plan = dataclasses.replace(plan, context={**plan.context, **timed.context(plan)})
    return Outcome(plan, calibration, measurements(losses, candidates), measuring.journal.record)


def measurements(losses: Losses, candidates: Candidates) -> Measurements:
    """Loss of every candidate, of its weight and of its input."""
    return {
        name: {
            choice: {
                "loss": losses.of(name, choice),
                "weight": losses.weight(name, choice),
                "input": losses.input(name, choice),
            }
            for choice in each
        }
        for name, each in candidates.items()
    }


def plan_of(
    study: Study, choices: Mapping[str, Choice], losses: Losses, metric: Metric, encoding: Encoding
) -> Plan:
    """The plan of a solution, with what it predicts."""
    loss = max(losses.of_plan(choices), 1e-30)
    if isinstance(metric, Noise):
        predicted = {"predicted_sqnr_db": round(decibels(loss), 3)}
    else:
        predicted = {f"predicted_{metric.kind}_loss": loss}
    reasons = study.structures.reasons()
    return Plan(
        choices=dict(choices),
        model=study.job.model,
        reasons={name: why for name, why in reasons.items() if choices[name].structures},
        context={**study.context(), "recipe": "auto", **predicted},
        encoding=encoding,
    )
