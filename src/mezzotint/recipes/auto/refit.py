"""A plan for a fine-tune, from the plan and the measurements of its base: a tenth of the probes.

Layers whose choice would not change if every layer's noise were off by some factor are settled, and
neither encoded nor probed in any other. Between the others' few rivals decide the base's noises,
corrected by what a tenth of its probes tell of the fine-tune.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np

from mezzotint.allocation import FEWEST_PROJECTIONS
from mezzotint.errors import UsageError
from mezzotint.plan import Choice
from mezzotint.recipes.auto.allocation import Found
from mezzotint.recipes.auto.estimates import Estimates
from mezzotint.recipes.auto.losses import ByFormat, Losses
from mezzotint.recipes.auto.program import IntegerProgram, chosen
from mezzotint.recipes.auto.refit_base import Base
from mezzotint.recipes.auto.refit_factors import Factors, Floats, factors_of
from mezzotint.recipes.auto.search import Search
from mezzotint.recipes.auto.sensitivity import Candidates, units_of

SHARE = 10
"""One probe for so many of the base's."""

RIVALS = 4
"""Choices of a layer between which is decided, at the most."""

_FEWEST = 2 * FEWEST_PROJECTIONS
_SAMPLES = 40
_OFF = 0.4
"""Standard deviation of the logarithm of the factor by which a layer's noise may be off."""

_SEED = 0


def refitted(search: Search, source: Path) -> tuple[Search, Found]:
    """The plan, and the search among the rivals that it was found in.

    Args:
        search: of the fine-tune.
        source: of the base's result, as of `Base.read`.

    Raises:
        PlanError, JournalError: the base is of other components or another model's layers, or was
            not probed.
        UsageError: the search goes by another metric than noise, or by labels.
        ProbeError: the model cannot be probed.
    """
    if not search.probes or search.lesson.emphasis:
        raise UsageError("refit: goes by probes of noise; leave metric, labels and measured out")
    base = Base.read(source, search.study, search.candidates)
    known = {
        name: tuple(each for each in choices if base.knows(name, each))
        for name, choices in search.candidates.items()
    }
    # A layer of which the base knows nothing is decided by the new probes alone.
    unknown = {name: search.candidates[name] for name, each in known.items() if not each}
    known = {name: each for name, each in known.items() if each}
    rivals = _rivals(search.program, base, known, unknown)
    search = _following(search, base, {name: rivals[name] for name in search.candidates})
    contested = {name: each for name, each in search.candidates.items() if len(each) > 1}
    losses, count = _losses(search, base, contested, unknown)
    solved = chosen(search.program.solve(losses))
    mapped = {name: base.choice(name, each) for name, each in search.candidates.items()}
    kept = {name: choice for name, choice in mapped.items() if choice is not None}
    plans: list[Mapping[str, Choice]] = [solved]
    if len(kept) == len(mapped) and kept != solved and search.program.allows(kept):
        plans.append(kept)
    best: Mapping[str, Choice] = solved
    if len(plans) > 1:
        noises = search.sample_noises([search.plan(each) for each in plans])
        best = min(zip(plans, noises, strict=True), key=lambda pair: fmean(pair[1]))[0]
    summary = {
        "sensitivity": "refit",
        "refit": {
            "base": base.plan.model,
            "base_probes": base.probes.count,
            "probes": count,
            "contested_layers": len(contested),
            "changed_layers": sum(best[name] != kept.get(name) for name in best),
        },
    }
    return search, Found(best, losses, summary, probes=count)


def _following(search: Search, base: Base, rivals: Candidates) -> Search:
    """The search among the rivals, with the clips and corrected biases of the base's plan."""
    program = search.program
    costs = {
        name: {choice: program.costs[name][choice] for choice in each}
        for name, each in rivals.items()
    }
    encoding = search.encoding
    if search.options.bias_correction == "tried":
        encoding = replace(encoding, bias_correction=base.plan.encoding.bias_correction)
    clips = {
        name: clip
        for name, each in rivals.items()
        if any(choice.static for choice in each)
        and (clip := base.plan.encoding_of(name).clip) in search.ranges
        and clip != encoding.clip
    }
    found = replace(
        search, candidates=rivals, program=replace(program, costs=costs), encoding=encoding
    )
    return found.clipped(clips)


def _rivals(
    program: IntegerProgram, base: Base, known: Candidates, unknown: Candidates
) -> dict[str, tuple[Choice, ...]]:
    """Layer → the choices that it has in some of many plausible solutions, and the base's own.

    Args:
        program: of the fine-tune's budget.
        base: with probes.
        known: candidates that the base has probed.
        unknown: candidates of layers of which it has probed none: all of them are rivals.
    """
    generator = np.random.default_rng(_SEED)
    candidates = {**known, **unknown}
    costs = {
        name: {choice: program.costs[name][choice] for choice in each}
        for name, each in candidates.items()
    }
    narrowed = replace(program, costs=costs)
    counts: dict[str, Counter[Choice]] = {name: Counter() for name in known}
    nothing: ByFormat = {
        name: {unit.format: 0.0 for unit in units_of(name, each)} for name, each in unknown.items()
    }
    probes = base.probes.count
    for sample in range(_SAMPLES):
        times = np.bincount(generator.integers(probes, size=probes), minlength=probes)
        losses = base.losses(known, np.ones(probes) if sample == 0 else times.astype(np.float64))
        off = generator.lognormal(sigma=0.0 if sample == 0 else _OFF, size=(2, len(known)))
        weights, inputs = (
            _scaled(each, dict(zip(known, factors, strict=True)))
            for each, factors in zip((losses.weights, losses.inputs), off, strict=True)
        )
        found = narrowed.roughly_solved(Losses({**weights, **nothing}, {**inputs, **nothing}))
        for name in known:
            counts[name][found[name]] += 1
    rivals = {name: tuple(each) for name, each in unknown.items()}
    for name, each in counts.items():
        own = base.choice(name, known[name])
        first = [] if own is None else [own]
        told = [choice for choice, _ in each.most_common(RIVALS)]
        rivals[name] = tuple(dict.fromkeys((*first, *told)))[:RIVALS]
    return rivals


def _scaled(losses: ByFormat, factors: Mapping[str, float]) -> dict[str, dict[str, float]]:
    return {
        name: {key: float(factors[name]) * loss for key, loss in each.items()}
        for name, each in losses.items()
    }


def _losses(
    search: Search, base: Base, contested: Candidates, unknown: Candidates
) -> tuple[Losses, int]:
    """Losses of all rivals, and how many probes of the fine-tune tell them."""
    known = {name: each for name, each in search.candidates.items() if name not in unknown}
    of_base = base.losses(known)
    if not contested:
        return of_base, 0
    count = max(_FEWEST, math.ceil(base.probes.count / SHARE))
    probed = replace(search, candidates=contested).projections(count)
    estimates = Estimates(probed)
    relative: tuple[dict[str, list[Floats]], dict[str, list[Floats]]] = ({}, {})
    for (name, of_input, key), row in estimates.rows:
        own = (of_base.inputs if of_input else of_base.weights).get(name, {}).get(key, 0.0)
        if own > 0:
            relative[of_input].setdefault(name, []).append(row / own)
    weights, inputs = (
        _corrected(losses, factors_of({name: np.mean(rows, axis=0) for name, rows in each.items()}))
        for losses, each in zip((of_base.weights, of_base.inputs), relative, strict=True)
    )
    told = estimates.losses
    weights |= {name: dict(told.weights[name]) for name in unknown}
    inputs |= {name: dict(told.inputs[name]) for name in unknown}
    return Losses(weights, inputs), count


def _corrected(losses: ByFormat, factors: Factors) -> dict[str, dict[str, float]]:
    return _scaled(losses, {name: factors.of(name) for name in losses})
