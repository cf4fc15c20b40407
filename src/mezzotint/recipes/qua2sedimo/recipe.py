"""Qua²SeDiMo (arXiv 2412.14628): learn what quantization costs, and choose by what was learned."""

from __future__ import annotations

from dataclasses import replace

from mezzotint.calibration import with_settings
from mezzotint.labels import label_metric
from mezzotint.plan import CalibrationSettings, Plan
from mezzotint.recipes.default_prompts import usual_count
from mezzotint.recipes.job import Job, Outcome, register_recipe
from mezzotint.recipes.qua2sedimo.all_formats import planned_among_all
from mezzotint.recipes.qua2sedimo.attention import with_simulated_attention
from mezzotint.recipes.qua2sedimo.decision import Decision, decided
from mezzotint.recipes.qua2sedimo.method import Method, prepared
from mezzotint.recipes.qua2sedimo.options import Qua2SeDiMo
from mezzotint.recipes.qua2sedimo.relabelled import relabelled
from mezzotint.recipes.qua2sedimo.verified_end import with_trades
from mezzotint.recipes.unpacked import add_unpacked


@register_recipe(
    "qua2sedimo",
    "Qua²SeDiMo for 3 to 4 bits: a predictor learns from labelled configurations what to choose",
    Qua2SeDiMo,
)
def qua2sedimo(job: Job, options: Qua2SeDiMo) -> Outcome:
    """Fit a predictor to labels; let scores, or a program over its predictions, choose formats.

    A second round of labels may follow where the decision falls, and exchanges of two layers that
    are kept only where the metric itself improves.
    """
    if options.formats == "all":
        return planned_among_all(job, options)
    with prepared(job, options) as begun:
        method, decision = begun, decided(begun.question)
        if options.second_round:
            method = relabelled(method, decision)
            # These labels were made for this budget alone, so a fit to them is not kept for others.
            decision = decided(replace(method.question, options=replace(options, fitted=None)))
        if options.trades:
            decision = with_trades(method, decision)
        plan = with_simulated_attention(
            plan_of(method, decision), options.attention, method.measuring
        )
    return Outcome(plan, method.calibration, record=method.measuring.journal.record)


def plan_of(method: Method, decision: Decision) -> Plan:
    """The plan of a decision, which says how it came to be."""
    study, bare = method.study, method.bare_plan(decision.configuration)
    choices, reasons = dict(bare.choices), dict[str, str]()
    add_unpacked(choices, reasons, study.job.denoiser, study.graph)
    context = method.context() | decision.context()
    context["stored_bits"] = round(float(method.space.bits(decision.configuration[None])[0]), 4)
    context["notes"] = [*study.structures.notes, *decision.notes]
    plan = replace(bare, choices=choices, model=study.job.model, reasons=reasons, context=context)
    return settled_as_labelled(method, plan)


def settled_as_labelled(method: Method, plan: Plan) -> Plan:
    """The plan, which says what the rounding of the bank's weights has looked at."""
    study, labelled = method.study, method.labelled
    if not plan.encoding.needs_grams or study.job.pipe is None:
        return study.settled(plan)
    sampling, context = labelled.sampling, labelled.labels.context
    if label_metric(context["metric"], context["images"]).sees == "images":
        sampling = sampling.part(0, usual_count(study.job.pipe))
    return with_settings(plan, CalibrationSettings(sampling=sampling))
