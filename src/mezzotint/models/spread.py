"""Choice of a few calls, and of their samples, spread over all runs of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence


def strata_of_runs(calls: int, runs: int) -> dict[int, tuple[int, ...]]:
    """Run of the pipeline → which of `calls` equal parts of the schedule it gives a call for.

    Parts go to the runs in turn, so that the timesteps of each are spread over the schedule; where
    there are more runs than parts, runs spread evenly over all give one each.
    """
    if runs <= calls:
        return {run: tuple(range(run, calls, runs)) for run in range(runs)}
    return {_middle(part, runs, calls): (part,) for part in range(calls)}


def steps_of_strata(strata: Sequence[int], calls: int, steps: int) -> dict[int, tuple[int, ...]]:
    """Step of a run → places in `strata` of the parts whose middle it holds.

    Args:
        strata: numbers of parts, rising.
        calls: how many equal parts there are.
        steps: distinct timesteps of the run.
    """
    found: dict[int, tuple[int, ...]] = {}
    for place, part in enumerate(strata):
        step = _middle(part, steps, calls)
        found[step] = (*found.get(step, ()), place)
    return found


def members_of_step(places: Sequence[int], members: int) -> tuple[int, ...]:
    """The calls of a step to keep: one per place, in turn, where a step makes several."""
    return tuple(sorted({place % members for place in places}))


def rows_of_batch(place: int, rows: int, prompts: int, samples: int) -> tuple[int, ...]:
    """Rows of a call to keep, rising: at most `samples` of them.

    Call after call they walk over the prompts, and from one turn over the prompts to the next
    change to the other half of guidance. A batch that is no multiple of its prompts has no halves.

    Args:
        place: of the call among those kept of its run.
        rows: of the batch: every prompt of the first half, then of the second.
        prompts: of the run.
        samples: the most to keep.
    """
    if rows <= samples:
        return tuple(range(rows))
    width = prompts if rows % prompts == 0 else rows
    halves = rows // width
    walk = (divmod(step, width) for step in range(place * samples, (place + 1) * samples))
    return tuple(sorted((prompt + turn) % halves * width + prompt for turn, prompt in walk))


def _middle(part: int, length: int, parts: int) -> int:
    """The position, of `length`, in the middle of one of `parts` equal parts."""
    return (2 * part + 1) * length // (2 * parts)
