"""Decisions from what was learned, at each level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mezzotint.errors import UsageError
from mezzotint.predictors import Dataset, Ensemble, PredictorOptions
from mezzotint.recipes.learning import Learned, learned, loaded
from mezzotint.recipes.qua2sedimo.around import Fronts, settled
from mezzotint.recipes.qua2sedimo.byte_window import best_within, scored_singly
from mezzotint.recipes.qua2sedimo.method import Method
from mezzotint.recipes.qua2sedimo.published import BlockScoring, block_level, op_level
from mezzotint.recipes.qua2sedimo.steering import steered
from mezzotint.recipes.qua2sedimo.variants import best_variants
from mezzotint.recipes.search_space import Floats, Group, Rows


@dataclass(frozen=True, eq=False)
class Decision:
    """A configuration, and how it was come by.

    Attributes:
        configuration: format indices [weights].
        learned: what decided.
        summary: part of the plan's context, JSON values.
        notes: for people.
    """

    configuration: Rows
    learned: Learned
    summary: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def decided(method: Method) -> Decision:
    """Learn from the labels, and choose at the level that the options say."""
    return _LEVELS[method.options.level](method)


def by_program(method: Method) -> Decision:
    """The program under the bytes, around its own answer until that stays (ours)."""
    options, space, window = method.options, method.space, method.window
    found = _learned(method, options.learning)
    value = found.value(options.caution)
    starts = [_least_error(method)]
    best = method.labelled.best_within(window.most)
    if best is not None:
        starts.append(best)
    start = starts[int(value(np.array(starts)).argmax())]
    fronts = None
    if isinstance(found.predictor, Ensemble):
        fronts = _fronts(method, found.predictor)
    answer = settled(space, value, window, start, rounds=options.rounds, fronts=fronts)
    mean, spread = found.predictor.predict(answer.configuration[None])
    summary = {
        "predicted_target": float(mean[0]),
        "spread": float(spread[0]),
        "rounds": answer.rounds,
        "stays": answer.stays,
    }
    return Decision(answer.configuration, found, summary, _window_notes(method))


def by_layer(method: Method) -> Decision:
    """The best format of each layer by its score at hop 0 (published)."""
    return _by_scores(method, lambda one: op_level(method.space, one.op_scores()))


def by_block(method: Method) -> Decision:
    """The best of all variants of each block by its score (published)."""
    return _by_scores(method, lambda one: block_level(method.space, block_scoring(method, one)))


_LEVELS: Mapping[str, Callable[[Method], Decision]] = {
    "op": by_layer,
    "block": by_block,
    "program": by_program,
}


def block_scoring(method: Method, ensemble: Ensemble) -> BlockScoring:
    """Scores of variants of a group, by those of its block.

    Weights of the block that have no choice are in none of the group's variants, nor do they
    matter: they have the same features whatever is chosen.
    """
    labelled = method.labelled
    block_of = dict(zip(method.space.groups, labelled.blocks, strict=True))
    key_of = {node.index: node.key for node in labelled.dataset.graph.weights}
    places = {key: place for place, key in enumerate(method.space.keys)}

    def score(group: Group, variants: Rows) -> Floats:
        block = block_of[group]
        columns = [places.get(key_of[index]) for index in block.weights]
        own = [member for member in columns if member is not None]
        given = np.zeros((len(variants), len(columns)), dtype=np.int64)
        given[:, [member is not None for member in columns]] = variants[
            :, [group.members.index(member) for member in own]
        ]
        return np.asarray(ensemble.block_scores(block, given))

    return score


def _fronts(method: Method, ensemble: Ensemble) -> Fronts:
    """The Pareto front by score of each large block; made once."""
    made: dict[str, Rows] = {}
    score = block_scoring(method, ensemble)

    def front(group: Group) -> Rows:
        if group.name not in made:
            found = best_variants(method.space, group, lambda variants: score(group, variants))
            made[group.name] = found.formats
        return made[group.name]

    return front


def _by_scores(method: Method, best: Callable[[Ensemble], Rows]) -> Decision:
    """Scores decide, and the weight of bits in the target decides how many there are."""
    options, learning = method.options, method.options.learning
    by_weight: dict[float, tuple[Rows, Learned]] = {}

    def configuration(bit_weight: float) -> Rows:
        target = f"{learning.target} - {bit_weight!r}*bits"
        found = _learned(method, replace(learning, target=target))
        if not isinstance(found.predictor, Ensemble):
            raise UsageError(
                f"predictor: {found.kind!r} scores no blocks; level {options.level!r} takes "
                "'network' or 'residual'"
            )
        by_weight[bit_weight] = best(found.predictor), found
        return by_weight[bit_weight][0]

    first = _worth_of_a_bit(method.labelled.dataset)
    answer = steered(method.space, method.window, configuration, first, options.trainings)
    stored = float(method.space.bits(answer.configuration[None])[0])
    notes = _window_notes(method)
    if not method.window.holds(int(method.space.stored(answer.configuration))):
        notes += (
            f"scores alone do not meet the bits asked for: of {options.trainings} weights of bits "
            f"in the target the best leads to {stored:.4g} per weight",
        )
    summary = {"bit_weight": answer.bit_weight, "trainings": len(by_weight)}
    return Decision(answer.configuration, by_weight[answer.bit_weight][1], summary, notes)


def _learned(method: Method, options: PredictorOptions) -> Learned:
    """The predictor: loaded where there is one, or else fitted, and kept where that is asked."""
    chosen, labelled = method.options, method.labelled
    if chosen.fitted is None:
        return learned(chosen.predictor, labelled.dataset, labelled.blocks, options)
    folder = Path(chosen.fitted)
    if folder.is_dir() and any(folder.iterdir()):
        return loaded(folder, chosen.predictor, labelled.dataset, options)
    found = learned(chosen.predictor, labelled.dataset, labelled.blocks, options)
    if not isinstance(found.predictor, Ensemble):
        raise UsageError(f"fitted: predictor {found.kind!r} is fitted in no time; leave it out")
    found.predictor.save(folder)
    return found


def _least_error(method: Method) -> Rows:
    """The configuration of the least Σ weight error in the window: known without any label."""
    dataset, space = method.labelled.dataset, method.space
    errors = dataset.weight_errors * np.asarray(space.sizes, dtype=np.float64)[:, None]
    found = best_within(space, scored_singly(space, -errors), method.window)
    assert found is not None, "a window is only made where a configuration is in it"
    return found


def _worth_of_a_bit(dataset: Dataset) -> float:
    """Fall of the metric with each stored bit, among the labels: where λ begins."""
    bits, values = dataset.bits, dataset.values
    varied = float(np.var(bits))
    slope = float(np.mean((bits - bits.mean()) * (values - values.mean()))) / varied if varied else 0
    return abs(slope) or float(np.std(values)) or 1.0


def _window_notes(method: Method) -> tuple[str, ...]:
    if not method.window.proven:
        return ()
    bits = np.array([method.window.least, method.window.most]) * 8 / int(method.space.sizes.sum())
    return (
        f"no configuration stores between {bits[0]:.4f} and {bits[1]:.4f} bits per weight: the "
        "former is what there is",
    )
