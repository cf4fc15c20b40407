"""The program level: what each block adds to the predicted target around one configuration."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mezzotint.recipes.qua2sedimo.byte_window import ByteWindow, Near, best_within, scored_singly
from mezzotint.recipes.qua2sedimo.variants import (
    SCORED,
    WHOLE,
    Variants,
    every_variant,
    near_variants,
    variant_count,
)
from mezzotint.recipes.search_space import (
    Group,
    Rows,
    SearchSpace,
    Value,
    single_changes,
    with_members,
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
    others stay as they are. Such changes only add up near the incumbent, hence the rounds. Where an
    answer turns out worse than the incumbent, the next may change half as many blocks of it.

    Args:
        space: the weights, their formats and blocks.
        value: the prediction.
        window: of bytes that every answer is in.
        start: format indices [weights]; the answer is better, or it has other bytes.
        rounds: programs at the most.
        fronts: where predictions take long, the variants of larger blocks that are looked at,
            beside those of one change.
    """
    around = _Around.of(space, value, start, fronts)
    best, best_value = start, -math.inf
    if window.holds(int(space.stored(start))):
        best_value = float(value(start[None])[0])
    reach, solved, stays = None, 0, False
    while solved < rounds and not stays:
        answer = around.answer(window, reach)
        solved += 1
        stays = bool((answer == around.incumbent).all())
        answer_value = float(value(answer[None])[0])
        if answer_value > best_value:
            best, best_value, reach = answer, answer_value, None
            if not stays:
                around = _Around.of(space, value, answer, fronts)
        else:  # together the changes do not do what each of them does alone: make fewer
            reach = around.changed(answer) // 2
            stays = stays or reach == 0
    return Settled(best, best_value, solved, stays)


@dataclass(frozen=True, eq=False)
class _Around:
    """One configuration, and what each block would change of its prediction.

    Attributes:
        space: the weights, their formats and blocks.
        value: the prediction.
        incumbent: format indices [weights].
        options: variants of every block, with the changes.
    """

    space: SearchSpace
    value: Value
    incumbent: Rows
    options: tuple[Variants, ...]

    @classmethod
    def of(
        cls, space: SearchSpace, value: Value, incumbent: Rows, fronts: Fronts | None
    ) -> _Around:
        level = value(incumbent[None])
        options = []
        for group in space.groups:
            formats = _looked_at(space, group, incumbent[list(group.members)], fronts)
            scores = value(with_members(incumbent, group.members, formats)) - level
            options.append(Variants(group, formats, space.group_bytes(group, formats), scores))
        return cls(space, value, incumbent, tuple(options))

    def changed(self, other: Rows) -> int:
        """Number of blocks in which another configuration differs."""
        differs = other != self.incumbent
        return sum(bool(differs[list(group.members)].any()) for group in self.space.groups)

    def answer(self, window: ByteWindow, reach: int | None) -> Rows:
        """The best configuration in the window, by the sum of the changes.

        Args:
            window: of bytes.
            reach: blocks that may change at the most; None for all. Where nothing within reach is
                in the window, the incumbent.
        """
        if reach is not None:
            near = Near(self.incumbent, reach)
            kept = [each.front_with(near.of(each.group)) for each in self.options]
            found = best_within(self.space, kept, window, near)
            return self.incumbent if found is None else found
        front = [each.front() for each in self.options]
        answer = best_within(self.space, front, replace(window, least=0))
        if answer is not None and window.holds(int(self.space.stored(answer))):
            return answer
        # The best that is predicted leaves bytes unused, which were asked for.
        singly = scored_singly(self.space, single_changes(self.space, self.value, self.incumbent))
        spread = [each.of_all_bytes() for each in self.options]
        every = (best_within(self.space, each, window) for each in (front, spread, singly))
        answers = np.array([each for each in every if each is not None])
        return np.asarray(answers[int(self.value(answers).argmax())])


def _looked_at(space: SearchSpace, group: Group, current: Rows, fronts: Fronts | None) -> Rows:
    if variant_count(space, group) <= (WHOLE if fronts is None else SCORED):
        return np.concatenate(list(every_variant(space, group)))
    if fronts is not None:
        near = near_variants(space, current, 1)
        return np.unique(np.concatenate((near, fronts(group))), axis=0)
    pairs = len(current) * (len(current) - 1) // 2 * (len(space.formats) - 1) ** 2
    return near_variants(space, current, 2 if pairs <= WHOLE else 1)
