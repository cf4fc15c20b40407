import pytest
import torch

from mezzotint.errors import UsageError
from mezzotint.profiling import Timer

CPU = torch.device("cpu")


class Worker:
    def __init__(self, seconds: float) -> None:
        self.seconds, self.now, self.calls = seconds, 0.0, 0

    def work(self) -> None:
        self.calls += 1
        self.now += self.seconds

    def time(self, **options):
        timer = Timer(clock=lambda: self.now, **options)
        return timer({"work": self.work}, CPU)["work"].median


def test_the_median_is_of_one_call():
    assert Worker(0.25).time() == 0.25


@pytest.mark.parametrize(("seconds", "rounds"), [(1.0, 7), (2**-7, 7), (2**-10, 21), (2**-20, 50)])
def test_what_is_soon_over_is_timed_more_often(seconds: float, rounds: int):
    worker = Worker(seconds)
    worker.time(repeats=7, most=50, seconds=0.02)
    # One call to warm up and one to look; then again one to warm up.
    assert worker.calls == rounds + 3


@pytest.mark.parametrize("options", [{"repeats": 0}, {"repeats": 9, "most": 8}], ids=str)
def test_impossible_counts_are_refused(options):
    with pytest.raises(UsageError, match="repeats"):
        Timer(**options)
