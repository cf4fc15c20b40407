"""More to choose from: all formats of recipe `auto`, in one search that labels weigh."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

from mezzotint.calibration import check_attention
from mezzotint.errors import UsageError
from mezzotint.models import Call, record_calls
from mezzotint.recipes.auto import Auto, studied_plan
from mezzotint.recipes.job import Job, Outcome
from mezzotint.recipes.qua2sedimo.attention import with_simulated_attention
from mezzotint.recipes.qua2sedimo.options import Qua2SeDiMo

MIXTURES = (2, 3, 4)
"""Average bits of the mixtures of widths inside a layer that the program may take."""

AMONG_ALL = ("labels", "predictor", "formats", "simulated_attention")
"""Options that have a meaning among all formats; the others are for labelled formats alone."""


def planned_among_all(job: Job, options: Qua2SeDiMo) -> Outcome:
    """The plan of `auto` within the job's bytes, with what labels tell of each layer.

    Lookup tables of 2 to 6 bits, uniform formats of 2 to 8 and mixtures of outlier channels, all
    with error feedback. The labels are of other formats: what carries over is how much the noise of
    a layer counts.

    Raises:
        UsageError: no labels are given, or an option has no meaning among all formats; or operands
            of the denoiser's attention are to be rounded, and cannot be.
        InfeasibleBudgetError: naming the nearest feasible budget.
    """
    program = program_options(options)
    if options.attention is not None:
        check_attention(job.denoiser, options.attention, _first_call(job))
    outcome, study = studied_plan(job, program)
    context = {"recipe": "qua2sedimo", "options": dataclasses.asdict(options)}
    plan = replace(outcome.plan, context={**outcome.plan.context, **context})
    record = outcome.record
    if options.attention is not None:
        with study.measuring(outcome.calibration) as measuring:
            plan = with_simulated_attention(plan, options.attention, measuring)
            if record is not None:
                entries = {**record.entries, **measuring.journal.entries}
                record = replace(record, entries=entries)
    return replace(outcome, plan=plan, record=record)


def _first_call(job: Job) -> Call:
    """One call of the denoiser, before all that the program goes by are recorded."""
    if job.calls:
        return job.calls[0]
    if job.pipe is None or job.sampling is None:
        raise UsageError("calls: none given; a module without a pipeline needs some")
    return record_calls(job.pipe, job.sampling, limit=1)[0]


def program_options(options: Qua2SeDiMo) -> Auto:
    """The options of `auto` that say the same.

    Raises:
        UsageError: no labels are given, or an option has no meaning among all formats.
    """
    for name in (each.name for each in dataclasses.fields(options)):
        if name not in AMONG_ALL and getattr(options, name) != Qua2SeDiMo.usual(name):
            raise UsageError(
                f"{name}: {getattr(options, name)} is for labelled formats, and would change "
                "nothing among all; leave it out, or formats=all"
            )
    if options.labels is None:
        raise UsageError("labels: none given; without them, use recipe 'auto'")
    return Auto(labels=options.labels, predictor=options.learner, mixtures=MIXTURES)
