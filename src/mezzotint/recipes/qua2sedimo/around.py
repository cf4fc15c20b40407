"""The program level: what each block adds to the predicted target around one configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mezzotint.recipes.qua2sedimo.byte_window import ByteWindow, best_within, scored_singly
from mezzotint.recipes.search_space import (
    Floats,
    Group,
    Rows,
    SearchSpace,
    Value,
    single_changes,
    with_members,
)
from mezzotint.recipes.qua2sedimo.variants import (
    SCORED,
    WHOLE,
    Variants,
    every_variant,
    near_variants,
    variant_count,
)

Fronts = Callable[[Group], Rows]
"""Group → variants that are worth a prediction, by their scores."""


@dataclass(frozen=True, eq=False)
class Settled:
    """The configuration that the program found.

    Attributes:
        configuration: format indices [weights].
        value: predicted, in the target's units.
        rounds: programs that were solved.
        stays: whether the last program, around its own answer, gave it again.
    """

    configuration: Rows
    value: float
    rounds: int
    stays: bool


def settled(
    space: SearchSpace,
    value: Value,
    window: ByteWindow,
    start: Rows,
    *,
    rounds: int,
    fronts: Fronts | None = None,
) -> Settled:
    """Solve the program around a configuration, then around its answer, until that stays.

    Each option scores the change of the predicted target when one block takes one variant while all
    others stay as they are. Such changes only add up near the incumbent, hence the rounds; of all
    answers the one with the best prediction is kept.

    Args:
        space: the weights, their formats and blocks.
        value: the prediction.
        window: of bytes that every answer is in.
        start: format indices [weights]; its bytes do not matter.
        rounds: programs at the most.
        fronts: where predictions take long, the variants of larger blocks that are looked at,
            beside those of one change.
    """
    incumbent, answers, stays, solved = start, dict[bytes, Rows](), False, 0
    while solved < rounds and not stays:
        answer = _answer(space, value, window, incumbent, fronts)
        solved += 1
        stays = bool((answer == incumbent).all())
        known = answer.tobytes() in answers
        answers[answer.tobytes()] = incumbent = answer
        if known:  # from here on it would go round
            break
    candidates = np.array(list(answers.values()))
    values = value(candidates)
    best = int(values.argmax())
    return Settled(candidates[best], float(values[best]), solved, stays)


def _answer(
    space: SearchSpace, value: Value, window: ByteWindow, incumbent: Rows, fronts: Fronts | None
) -> Rows:
    """The best configuration in the window, by what each block changes of the incumbent's."""
    options = [_options(space, group, value, incumbent, fronts) for group in space.groups]
    front = [each.front() for each in options]
    answer = best_within(space, front, replace(window, least=0))
    if answer is not None and window.holds(int(space.stored(answer))):
        return answer
    # The best that is predicted leaves bytes unused, which were asked for.
    singly = scored_singly(space, single_changes(space, value, incumbent))
    spread = [each.of_all_bytes() for each in options]
    found = [best_within(space, each, window) for each in (front, spread, singly)]
    answers = np.array([each for each in found if each is not None])
    return answers[int(value(answers).argmax())]


def _options(
    space: SearchSpace, group: Group, value: Value, incumbent: Rows, fronts: Fronts | None
) -> Variants:
    """Variants of a group with the change of the prediction that each makes."""
    formats = _looked_at(space, group, incumbent[list(group.members)], fronts)
    changed = value(with_members(incumbent, group.members, formats))
    scores = changed - value(incumbent[None])
    return Variants(group, formats, space.group_bytes(group, formats), scores)


def _looked_at(space: SearchSpace, group: Group, current: Rows, fronts: Fronts | None) -> Rows:
    if variant_count(space, group) <= (WHOLE if fronts is None else SCORED):
        return np.concatenate(list(every_variant(space, group)))
    if fronts is not None:
        near = near_variants(space, current, 1)
        return np.unique(np.concatenate((near, fronts(group))), axis=0)
    pairs = len(current) * (len(current) - 1) // 2 * (len(space.formats) - 1) ** 2
    return near_variants(space, current, 2 if pairs <= WHOLE else 1)
