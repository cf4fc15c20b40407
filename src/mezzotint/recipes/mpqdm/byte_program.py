"""One program for everything, in place of a nominal width: all bytes count, and layers differ."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

from mezzotint.errors import UsageError
from mezzotint.models import inventory
from mezzotint.recipes.auto import Auto, auto
from mezzotint.recipes.job import Job, Outcome
from mezzotint.recipes.mpqdm.options import MPQDM
from mezzotint.recipes.mpqdm.plan_bits import plan_bits

MIXTURES = (2, 3, 4)
"""Average bits of the mixtures of widths inside a layer that the program may take."""

NOMINAL_ONLY = ("samples", "search", "plus", "one_bit_levels", "inputs", "shortcuts")
"""Options that nominal widths alone have a use for."""


def counts_bytes(job: Job, options: MPQDM) -> bool:
    """True where the budget is one of stored bytes, not of a nominal width."""
    return options.counting == "stored" or job.budget.size is not None


def planned_by_bytes(job: Job, options: MPQDM) -> Outcome:
    """The plan of `auto` within the job's bytes, mixtures of outlier channels among its options.

    There are no exceptions: what a layer bears is predicted and measured, with the stored rounding.
    Inputs have the budget's width, per token, where they are not left floating.

    Raises:
        UsageError: an option has no meaning where bytes are counted.
        InfeasibleBudgetError: naming the nearest feasible budget.
    """
    _check_meaning(options)
    outcome = auto(job, program_options(options))
    plan = outcome.plan
    layers = [layer for layer in inventory(job.denoiser) if layer.supported]
    bits = plan_bits(job.denoiser, layers, plan.choices, ())
    context = {**plan.context, "recipe": "mpqdm", "options": dataclasses.asdict(options)}
    return replace(outcome, plan=replace(plan, context=context | bits.context()))


def program_options(options: MPQDM) -> Auto:
    """The options of `auto` that say the same, where it has them."""
    return Auto(
        calibration_prompts=options.calibration_prompts,
        mixtures=MIXTURES if options.mixes_widths else (),
        rounding=options.rounding,
        bos=options.bos,
        smoothing=options.smoothing,
        search=options.ranges,
    )


def _check_meaning(options: MPQDM) -> None:
    usual = MPQDM()
    changed = [name for name in NOMINAL_ONLY if getattr(options, name) != getattr(usual, name)]
    if options.channels not in (usual.channels, "none"):
        changed.append("channels")
    if changed:
        name = changed[0]
        raise UsageError(
            f"{name}: {getattr(options, name)} is for nominal widths, and would change nothing "
            "where bytes are counted; leave it out"
        )
