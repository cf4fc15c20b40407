"""One program for everything, in place of a nominal width: all bytes count, and layers differ."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

from mezzotint.errors import UsageError
from mezzotint.formats import FLOAT
from mezzotint.models import inventory
from mezzotint.plan import Budget
from mezzotint.recipes.auto import Auto, found_plan
from mezzotint.recipes.job import Job, Outcome
from mezzotint.recipes.mpqdm.options import MPQDM
from mezzotint.recipes.mpqdm.plan_bits import plan_bits
from mezzotint.recipes.mpqdm.widths import activation_width

MIXTURES = (2, 3, 4)
"""Average bits of the mixtures of widths inside a layer that the program may take."""

NOMINAL_ONLY = ("samples", "search", "plus", "one_bit_levels", "step_bits", "shortcuts")
"""Options that nominal widths alone have a use for."""


def counts_bytes(job: Job, options: MPQDM) -> bool:
    """True where the budget is one of stored bytes, not of a nominal width."""
    return options.counting == "stored" or job.budget.size is not None


def planned_by_bytes(job: Job, options: MPQDM) -> Outcome:
    """The plan of `auto` within the job's bytes, mixtures of outlier channels among its options.

    There are no exceptions: what a layer bears is predicted and measured, with the stored rounding.
    Inputs have the budget's width, where they are not left floating.

    Raises:
        UsageError: an option has no meaning where bytes are counted.
        InfeasibleBudgetError: naming the nearest feasible budget.
    """
    _check_meaning(options)
    outcome = found_plan(job, program_options(options, job.budget))
    plan = outcome.plan
    layers = [layer for layer in inventory(job.denoiser) if layer.supported]
    bits = plan_bits(job.denoiser, layers, plan.choices, ())
    context = {**plan.context, "recipe": "mpqdm", "options": dataclasses.asdict(options)}
    return replace(outcome, plan=replace(plan, context=context | bits.context()))


def program_options(options: MPQDM, budget: Budget) -> Auto:
    """The options of `auto` that say the same, where it has them.

    Raises:
        UsageError: the width of inputs is no whole number of bits.
    """
    return Auto(
        calibration_prompts=options.calibration_prompts,
        mixtures=MIXTURES if options.mixes_widths else (),
        inputs=_inputs(options, budget),
        rounding=options.rounding,
        bos=options.bos,
        smoothing=options.smoothing,
        smoothing_norms=options.smoothing and options.smoothing_norms,
        search=options.ranges,
    )


def _inputs(options: MPQDM, budget: Budget) -> tuple[str, ...] | None:
    """Formats among which the program chooses each layer's input; None for those of `auto`.

    Scales per token cost no bytes, and follow each input: they are there in any case.
    """
    bits = activation_width(budget.act_bits)
    if bits is None or options.inputs == "token":
        return None
    return f"uint{bits}/{options.inputs}", f"int{bits}/token", f"uint{bits}/token", FLOAT


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
