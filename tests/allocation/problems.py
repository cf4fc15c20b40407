"""Small problems, what enumeration says of them, and one of a large model's shape."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from mezzotint.allocation import BitProgram, Limit, Option, Problem, Solution

RESOURCES = ("bytes", "milliseconds")

# Whole numbers make ties frequent; multiples of 0.1 make sums that only nearly meet a limit.
costs = st.one_of(
    st.integers(0, 20),
    st.integers(0, 20).map(lambda tenths: tenths * 0.1),
    st.floats(0, 1e10, allow_subnormal=False),
)
scores = st.one_of(
    st.integers(-8, 8).map(float),
    st.floats(-1e3, 1e3),
    st.floats(-8, 8).map(lambda power: -(10.0**power)),
)


@st.composite
def problems(draw, scores=scores, costs=costs):
    """Up to five layers of up to four options."""
    layers = {}
    for index in range(draw(st.integers(1, 5))):
        layers[f"layer{index}"] = tuple(
            Option(key, draw(scores), {resource: draw(costs) for resource in RESOURCES})
            for key in range(draw(st.integers(1, 4)))
        )
    return Problem(layers)


def assignments(problem: Problem) -> list[tuple[Option, ...]]:
    return list(itertools.product(*problem.layers.values()))


def use(options: tuple[Option, ...], resource: str) -> Fraction:
    return sum((Fraction(option.costs[resource]) for option in options), Fraction(0))


def score(options: tuple[Option, ...]) -> float:
    return math.fsum(option.score for option in options)


def within(options: tuple[Option, ...], limits) -> bool:
    """True if these options keep to the limits, in exact arithmetic."""
    return all(
        use(options, limit.resource) <= limit.maximum
        and (limit.minimum is None or use(options, limit.resource) >= limit.minimum)
        for limit in limits
    )


def best_score(problem: Problem, limits) -> float | None:
    return max(
        (score(options) for options in assignments(problem) if within(options, limits)),
        default=None,
    )


def chosen_options(problem: Problem, solution: Solution) -> tuple[Option, ...]:
    return tuple(
        next(option for option in options if option.key == solution.chosen[name])
        for name, options in problem.layers.items()
    )


def close(problem: Problem, one: float, other: float) -> bool:
    """True if two total scores of a problem agree up to rounding."""
    size = sum(max(abs(o.score) for o in options) for options in problem.layers.values())
    return abs(one - other) <= 1e-13 * size


def sdxl_shaped(seed: int = 0) -> tuple[dict[str, dict[int, float]], dict[str, int]]:
    """Scores (decibels) and sizes of 794 layers at 2, 4 and 8 bits, as in SDXL's UNet."""
    rng = np.random.default_rng(seed)
    widths = rng.choice([320, 640, 1280, 2048, 2560, 5120, 10240], (794, 2))
    base = rng.normal(20, 6, 794)
    scores = {
        f"layer{i}": {bits: base[i] + 6.02 * bits + rng.normal() for bits in (2, 4, 8)}
        for i in range(794)
    }
    return scores, {f"layer{i}": int(a * b) for i, (a, b) in enumerate(widths)}


def bytes_limit(problem: Problem, share: float) -> Limit:
    """A limit on bytes at a share of the way from the least to the most attainable."""
    ends = [
        sum(
            pick(option.costs["bytes"] for option in options) for options in problem.layers.values()
        )
        for pick in (min, max)
    ]
    return Limit("bytes", ends[0] + share * (ends[1] - ends[0]))


def sdxl_groups(seed: int = 0) -> tuple[BitProgram, BitProgram]:
    """MixDQ's two groups for weights: 420 layers at 2, 4 and 8 bits, and 374 at 4 and 8."""
    scores, sizes = sdxl_shaped(seed)
    names = list(scores)

    def group(names, candidates):
        return BitProgram(
            {name: {bits: scores[name][bits] for bits in candidates} for name in names},
            {name: sizes[name] for name in names},
        )

    return group(names[:420], (2, 4, 8)), group(names[420:], (4, 8))
