"""Tests run over a product of parameters, and the few combinations that stand for all of them."""

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import pytest

#: The fewest combinations that a product is cut down to.
FEWEST = 12

#: Values of a combination, each with the name of its parameter.
Combination = Sequence[tuple[str, Hashable]]


def diagonal(combinations: Sequence[Combination], fewest: int = FEWEST) -> list[int]:
    """Positions of combinations in which each value of each parameter occurs at least once.

    Each step takes the combination with the most values that none had before; of several, the one
    with the most new pairs of values, a pair counting by its part in the product of the two
    parameters; of those, the one whose values occurred least often. That walks along a product's
    diagonal, and along others beside it, until its longest axis ends. Equal combinations in the
    same order give the same positions.

    Args:
        combinations: values of each, of the same parameters in the same order.
        fewest: combinations to take at least, as long as there are so many.

    Returns:
        Positions in ascending order.
    """
    left = {at: (set(c), set(itertools.combinations(c, 2))) for at, c in enumerate(combinations)}
    missing = {value for values, _ in left.values() for value in values}
    unseen = {pair for _, pairs in left.values() for pair in pairs}
    product = Counter((one, other) for (one, _), (other, _) in unseen)
    uses: Counter[tuple[str, Hashable]] = Counter()

    def merit(at: int) -> tuple[int, float, int, int]:
        values, pairs = left[at]
        parts = math.fsum(1 / product[one, other] for (one, _), (other, _) in pairs & unseen)
        return len(values & missing), parts, -sum(uses[value] for value in values), -at

    while left and (missing or len(combinations) - len(left) < fewest):
        values, pairs = left.pop(max(left, key=merit))
        missing -= values
        unseen -= pairs
        uses.update(values)
    return [at for at in range(len(combinations)) if at not in left]


def axes(item: pytest.Function) -> Combination:
    """The values of a parametrized test: one per ``parametrize``, and one per fixture with several.

    The rows of a ``parametrize`` of several names are the values of one axis: a table, not a
    product. A value is told from others by its identity, as many cannot be compared.
    """
    params = {name: id(value) for name, value in item.callspec.params.items()}
    pairs: list[tuple[str, Hashable]] = []
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs["argnames"]
        if not isinstance(names, str):
            names = ",".join(names)
        row = tuple(params.pop(name.strip()) for name in names.split(",") if name.strip())
        pairs.append((names, row))
    return [*pairs, *params.items()]


def beyond_the_diagonals(items: Iterable[pytest.Item]) -> set[pytest.Item]:
    """Tests of a product of parameters whose every value occurs in other tests already."""
    matrices: dict[str, list[pytest.Function]] = {}
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            test = item.nodeid.removesuffix(f"[{item.callspec.id}]")
            matrices.setdefault(test, []).append(item)
    repeated: set[pytest.Item] = set()
    for cells in matrices.values():
        if len(cells) > FEWEST:
            kept = set(diagonal([axes(cell) for cell in cells]))
            repeated.update(cell for at, cell in enumerate(cells) if at not in kept)
    return repeated
