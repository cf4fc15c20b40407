"""Work that may follow the first probes: told before it begins, as a bound."""

from __future__ import annotations

from mezzotint.measuring import (
    MOST_PROBES,
    Forecast,
    Samples,
    at_most,
    task_seconds,
    timed_call,
)
from mezzotint.recipes.auto.search import Search
from mezzotint.recipes.auto.verification import MOST_MEASURED

_PLANS = 2
"""Plans that each of exchanges, biases and the check runs."""


def later_stages(search: Search) -> str:
    """A line on what follows at the most: probes until doubt is small, verification, checks.

    Layers that no gradient reaches, which are measured in every format, are not counted.
    """
    options, original = search.options, search.measuring.original
    probes = MOST_PROBES - options.probes + (MOST_PROBES if options.exchanges else 0)
    formats = MOST_MEASURED if options.sensitivity == "hybrid" else 0
    plans = _PLANS * sum((options.exchanges, search.tries_biases, search.verifies))
    sample = Samples(original.denoiser).sample(original.calls[0], 0)
    backward = timed_call(original.denoiser, sample, backward=True)
    return at_most(
        {
            "more probes": Forecast(probes, backward),
            f"measurements on {len(original.calls)} calls": Forecast(
                formats + plans, task_seconds(original, search.metric)
            ),
        }
    )
