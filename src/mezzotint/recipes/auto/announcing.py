"""Announcement of all the work of the recipe, where anyone listens."""

from __future__ import annotations

from mezzotint._progress import announcer
from mezzotint.measuring import chosen_metric
from mezzotint.models import component_names
from mezzotint.plan import CallSelection
from mezzotint.recipes.auto.encodings import encodings
from mezzotint.recipes.auto.expected_calls import expected_calls
from mezzotint.recipes.auto.options import Auto
from mezzotint.recipes.auto.outlook import Outlook
from mezzotint.recipes.auto.rehearsal import Rehearsal, rehearsed
from mezzotint.recipes.job import Job


def announced(
    job: Job, options: Auto, selection: CallSelection | None, budgets: int | None
) -> Rehearsal | None:
    """Tell what all will take, by one call that is timed; None where nobody listens.

    Of several components together nothing is told, since their calls differ: each stage is
    announced as it begins.

    Args:
        job: what was asked for.
        options: of the recipe.
        selection: the calls that will be kept.
        budgets: how many plans will be looked for; None for one that is packed as well.

    Raises:
        ModelError, UsageError: the pipeline or the denoiser fails, as they would at work.
    """
    tell = announcer()
    if tell is None or component_names(job.denoiser) or not (job.calls or job.sampling):
        return None
    rehearsal = rehearsed(job, options.restrictions)
    if rehearsal.layers:
        tell(
            Outlook(
                job,
                options,
                chosen_metric(options.metric),
                encodings(options)[1],
                rehearsal,
                expected_calls(job, selection, rehearsal),
                budgets,
            ).text
        )
    return rehearsal
