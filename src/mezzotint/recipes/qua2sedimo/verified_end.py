"""The verified end: exchanges at equal bytes, screened on held-out seeds, confirmed on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial

from mezzotint.recipes.qua2sedimo.decision import Decision
from mezzotint.recipes.qua2sedimo.like_labels import LikeLabels, on_held_out_seeds
from mezzotint.recipes.qua2sedimo.method import Method
from mezzotint.recipes.qua2sedimo.trades import confirmed, proposed_trades, screened
from mezzotint.recipes.search_space import Rows


def with_trades(method: Method, decision: Decision) -> Decision:
    """The decision after the exchanges that proved to help.

    Args:
        method: says how many are tried.
        decision: whose predictor proposes them.

    Raises:
        UsageError: the labels' metric cannot be measured on held-out seeds.
    """
    options, space, window = method.options, method.space, method.window
    incumbent = decision.configuration
    value, sign = decision.learned.value(options.caution), -1.0 if options.reverse else 1.0
    trades = proposed_trades(space, value, window, incumbent, options.trades)

    @cache
    def judge(again: bool) -> LikeLabels:
        """Made when it is asked for: it may have to record calls of its seeds."""
        return on_held_out_seeds(method, again=again)

    def measured(again: bool, label: str, configuration: Rows) -> Sequence[float]:
        found: list[float] = judge(again).losses(configuration[None], label)[0].tolist()
        return [sign * each for each in found]

    first = partial(measured, False, "Trying exchanges")
    found = screened(trades, incumbent, window, space, first)
    end = confirmed(found, incumbent, partial(measured, True, "Confirming exchanges"))
    summary = {
        "tried": found.tried,
        "passed": len(found.passed),
        "kept": len(end.kept),
        "held_out_before": sign * end.before,
        "held_out_after": sign * end.after,
    }
    notes = decision.notes
    if len(end.kept) < len(found.passed):
        notes += (
            f"{len(found.passed)} of {found.tried} exchanges seemed to help; together, on other "
            "seeds, they do not by more than chance would: none is made",
        )
    return replace(
        decision,
        configuration=end.configuration,
        summary={**decision.summary, "trades": summary},
        notes=notes,
    )
