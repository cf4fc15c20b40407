"""The verified end: exchanges at equal bytes, kept where the metric on held-out seeds improves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mezzotint.recipes.qua2sedimo.decision import Decision
from mezzotint.recipes.qua2sedimo.like_labels import on_held_out_seeds
from mezzotint.recipes.qua2sedimo.method import Method
from mezzotint.recipes.qua2sedimo.trades import proposed_trades, verified
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
    judge, incumbent = on_held_out_seeds(method), decision.configuration
    value, sign = decision.learned.value(options.caution), -1.0 if options.reverse else 1.0
    trades = proposed_trades(space, value, window, incumbent, options.trades)

    def measured(configuration: Rows) -> Sequence[float]:
        found: list[float] = judge.losses(configuration[None], "Verifying exchanges")[0].tolist()
        return [sign * each for each in found]

    end = verified(trades, incumbent, window, space, measured)
    summary = {
        "tried": end.tried,
        "kept": len(end.kept),
        "held_out_before": sign * end.before,
        "held_out_after": sign * end.after,
    }
    return replace(
        decision,
        configuration=end.configuration,
        summary={**decision.summary, "trades": summary},
    )
