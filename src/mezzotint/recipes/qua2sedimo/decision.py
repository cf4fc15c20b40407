"""Decisions from what was learned, at each level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from mezzotint.errors import UsageError
from mezzotint.predictors import Dataset, Ensemble, PredictorOptions
from mezzotint.recipes.labelled import LabelledModel
from mezzotint.recipes.learning import Learned, learned_once
from mezzotint.recipes.qua2sedimo.around import settled
from mezzotint.recipes.qua2sedimo.block_scores import block_scoring, fronts_by_score
from mezzotint.recipes.qua2sedimo.byte_window import ByteWindow, best_within, scored_singly
from mezzotint.recipes.qua2sedimo.options import Qua2SeDiMo
from mezzotint.recipes.qua2sedimo.published import block_level, op_level
from mezzotint.recipes.qua2sedimo.steering import steered
from mezzotint.recipes.search_space import Rows, SearchSpace


@dataclass(frozen=True, eq=False)
class Question:
    """All that a decision goes by: labels, bytes, and the switches.

    Attributes:
        labelled: configurations with their labels.
        window: bytes of all weights.
        options: the method's switches.
    """

    labelled: LabelledModel
    window: ByteWindow
    options: Qua2SeDiMo

    @property
    def space(self) -> SearchSpace:
        """Weights, formats and blocks."""
        return self.labelled.space


@dataclass(frozen=True, eq=False)
class Decision:
    """A configuration, and how it was come by.

    Attributes:
        configuration: format indices [weights].
        learned: what decided.
        summary: how the level came to it, JSON values.
        notes: for people.
    """

    configuration: Rows
    learned: Learned
    summary: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def context(self) -> dict[str, object]:
        """Part of the plan's context, JSON values; what is predicted is of this configuration."""
        mean, spread = self.learned.predictor.predict(self.configuration[None])
        predicted = {"predicted_target": float(mean[0]), "spread": float(spread[0])}
        return {**self.learned.context(), **predicted, **self.summary}


def decided(question: Question) -> Decision:
    """Learn from the labels, and choose at the level that the options say."""
    return _LEVELS[question.options.level](question)


def by_program(question: Question) -> Decision:
    """The program under the bytes, around its own answer until that stays (ours)."""
    return programmed(question, _learned(question, question.options.learning))


def programmed(question: Question, found: Learned) -> Decision:
    """The same with a predictor that is there already."""
    options, space, window = question.options, question.space, question.window
    value = found.value(0.0)
    starts = [_least_error(question)]
    best = question.labelled.best_within(window.most)
    if best is not None:
        starts.append(best)
    start = starts[int(value(np.array(starts)).argmax())]
    fronts = None
    if isinstance(found.predictor, Ensemble):
        fronts = fronts_by_score(question.labelled, found.predictor)
    answer = settled(space, value, window, start, rounds=options.rounds, fronts=fronts)
    if options.caution:  # spreads do not add up over blocks: best looked at from near by
        careful, start = found.value(options.caution), answer.configuration
        answer = settled(space, careful, window, start, rounds=options.rounds, fronts=fronts)
    summary = {"rounds": answer.rounds, "stays": answer.stays}
    return Decision(answer.configuration, found, summary, _window_notes(question))


def by_layer(question: Question) -> Decision:
    """The best format of each layer by its score at hop 0 (published)."""
    return _by_scores(question, lambda one: op_level(question.space, one.op_scores()))


def by_block(question: Question) -> Decision:
    """The best of all variants of each block by its score (published)."""
    space, labelled = question.space, question.labelled
    return _by_scores(question, lambda one: block_level(space, block_scoring(labelled, one)))


_LEVELS: Mapping[str, Callable[[Question], Decision]] = {
    "op": by_layer,
    "block": by_block,
    "program": by_program,
}


def _by_scores(question: Question, best: Callable[[Ensemble], Rows]) -> Decision:
    """Scores decide, and the weight of bits in the target decides how many there are."""
    options, learning = question.options, question.options.learning
    by_weight: dict[float, tuple[Rows, Learned]] = {}

    def configuration(parameter: float) -> Rows:
        bit_weight = 1 / parameter if options.reverse else parameter
        target = f"{learning.target} - {bit_weight!r}*bits"
        found = _learned(question, replace(learning, target=target))
        if not isinstance(found.predictor, Ensemble):
            raise UsageError(
                f"predictor: {found.kind!r} scores no blocks; level {options.level!r} takes "
                "'network' or 'residual'"
            )
        by_weight[parameter] = best(found.predictor), found
        return by_weight[parameter][0]

    # The worst configuration has few bits, unless bits count for bad as well: the other way round.
    first = _worth_of_a_bit(question.labelled.dataset)
    first = 1 / first if options.reverse else first
    answer = steered(question.space, question.window, configuration, first, options.trainings)
    stored = float(question.space.bits(answer.configuration[None])[0])
    notes = _window_notes(question)
    if not question.window.holds(int(question.space.stored(answer.configuration))):
        notes += (
            f"scores alone do not meet the bits asked for: of {options.trainings} weights of bits "
            f"in the target the best leads to {stored:.4g} per weight",
        )
    found = by_weight[answer.parameter][1]
    summary = {
        "target": found.predictor.fitted.options.target,
        "trainings": len(by_weight),
    }
    return Decision(answer.configuration, found, summary, notes)


def _learned(question: Question, options: PredictorOptions) -> Learned:
    chosen, labelled = question.options, question.labelled
    return learned_once(chosen.fitted, chosen.learner, labelled.dataset, labelled.blocks, options)


def _least_error(question: Question) -> Rows:
    """The configuration of the least Σ weight error in the window: known without any label."""
    dataset, space = question.labelled.dataset, question.space
    errors = dataset.weight_errors * np.asarray(space.sizes, dtype=np.float64)[:, None]
    found = best_within(space, scored_singly(space, -errors), question.window)
    assert found is not None, "a window is only made where a configuration is in it"
    return found


def _worth_of_a_bit(dataset: Dataset) -> float:
    """Fall of the metric with each stored bit, among the labels: where λ begins."""
    bits, values = dataset.bits, dataset.values
    varied = float(np.var(bits))
    slope = (
        float(np.mean((bits - bits.mean()) * (values - values.mean()))) / varied if varied else 0
    )
    return abs(slope) or float(np.std(values)) or 1.0


def _window_notes(question: Question) -> tuple[str, ...]:
    if not question.window.proven:
        return ()
    bits = (
        np.array([question.window.least, question.window.most])
        * 8
        / int(question.space.sizes.sum())
    )
    return (
        f"no configuration stores between {bits[0]:.4f} and {bits[1]:.4f} bits per weight: the "
        "former is what there is",
    )
