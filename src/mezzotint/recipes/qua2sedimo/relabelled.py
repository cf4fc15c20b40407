"""A second round of labels near the configuration that the first led to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mezzotint.errors import LabelError
from mezzotint.recipes.qua2sedimo.decision import Decision
from mezzotint.recipes.qua2sedimo.like_labels import on_label_seeds
from mezzotint.recipes.qua2sedimo.method import Method
from mezzotint.recipes.qua2sedimo.nearby import nearby


def relabelled(method: Method, decision: Decision) -> Method:
    """Measure configurations that differ from a decision in three choices, at equal bytes.

    They are labels like the others, but stand in the recipe's own journal: the labels folder stays
    as it is, for other budgets.

    Args:
        method: says how many.
        decision: near which they are.

    Raises:
        LabelError: none that are near can be measured.
    """
    options, space = method.options, method.space
    rows = nearby(space, method.window, decision.configuration, options.second_round, options.seed)
    rows = np.concatenate((decision.configuration[None], rows))
    values = on_label_seeds(method).losses(rows, "Labelling nearby")[:, 0]
    finite = np.isfinite(values)
    if not finite.any():
        raise LabelError(
            f"second_round: all {len(rows)} configurations near the first answer ruin the model; "
            "allow more bits"
        )
    return replace(method, labelled=method.labelled.with_labels(rows[finite], values[finite]))
