"""More to choose from: all formats of recipe `auto`, in one search that labels weigh."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

from mezzotint.errors import UsageError
from mezzotint.recipes.auto import Auto, auto
from mezzotint.recipes.job import Job, Outcome
from mezzotint.recipes.qua2sedimo.options import Qua2SeDiMo

MIXTURES = (2, 3, 4)
"""Average bits of the mixtures of widths inside a layer that the program may take."""

AMONG_ALL = ("labels", "predictor", "formats")
"""Options that have a meaning among all formats; the others are for labelled formats alone."""


def planned_among_all(job: Job, options: Qua2SeDiMo) -> Outcome:
    """The plan of `auto` within the job's bytes, with what labels tell of each layer.

    Lookup tables of 2 to 6 bits, uniform formats of 2 to 8 and mixtures of outlier channels, all
    with error feedback. The labels are of other formats: what carries over is how much the noise of
    a layer counts.

    Raises:
        UsageError: no labels are given, or an option has no meaning among all formats.
        InfeasibleBudgetError: naming the nearest feasible budget.
    """
    outcome = auto(job, program_options(options))
    context = {"recipe": "qua2sedimo", "options": dataclasses.asdict(options)}
    return replace(outcome, plan=replace(outcome.plan, context={**outcome.plan.context, **context}))


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
    return Auto(labels=options.labels, predictor=options.predictor, mixtures=MIXTURES)
