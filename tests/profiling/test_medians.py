import pytest

from mezzotint.errors import UsageError
from mezzotint.profiling import interleaved_medians


class Workers:
    """Two functions that take scripted times on a clock of their own."""

    def __init__(self, a: list[float], b: list[float]) -> None:
        self.now = 0.0
        self.order = ""
        self.durations = {"a": iter(a), "b": iter(b)}

    def work(self, name: str) -> None:
        self.order += name
        self.now += next(self.durations[name])

    def measure(self, **options):
        functions = {name: lambda name=name: self.work(name) for name in self.durations}
        return interleaved_medians(functions, clock=lambda: self.now, **options)


def test_calls_alternate():
    workers = Workers([1] * 5, [1] * 5)
    workers.measure(repeats=3, warmup=2)
    assert workers.order == "ab" * 5


def test_the_warmup_does_not_count():
    result = Workers([100, 1, 2, 6], [100, 2, 2, 2]).measure(repeats=3, warmup=1)
    assert (result["a"].median, result["a"].minimum, result["a"].maximum) == (2, 1, 6)
    assert result["b"].median == 2


def test_ratios_compare_calls_of_the_same_round():
    # The machine slows down threefold; b takes half of a's time throughout.
    result = Workers([2, 6, 6], [1, 3, 3]).measure(repeats=3, warmup=0)
    assert result["a"].ratio == 1
    assert result["b"].ratio == 0.5


@pytest.mark.parametrize("options", [{"repeats": 0}, {"warmup": -1}], ids=str)
def test_impossible_counts_are_refused(options):
    with pytest.raises(UsageError, match="use at least"):
        interleaved_medians({"a": int}, **options)


def test_nothing_to_time_is_refused():
    with pytest.raises(UsageError, match="functions"):
        interleaved_medians({})
