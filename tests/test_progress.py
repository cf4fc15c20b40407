import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr
from itertools import count

import pytest

from mezzotint._progress import announcer, meter, track

ERASE_LINE = "\x1b[2K"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(items: Iterable[object], *, seconds: int, total: int | None = None) -> str:
    """Text that a terminal receives while each item takes so many seconds."""
    terminal = Terminal()
    with redirect_stderr(terminal):
        list(track(items, "Spelling", total, clock=count(0, seconds).__next__))
    return terminal.getvalue()


@pytest.fixture(autouse=True)
def _ordinary_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")


def test_it_yields_the_items():
    with redirect_stderr(Terminal()):
        assert list(track("abc", "Spelling")) == ["a", "b", "c"]


def logged(items: Iterable[object], *, seconds: int, total: int | None = None) -> list[str]:
    """Lines that a file receives while each item takes so many seconds."""
    log = io.StringIO()
    with redirect_stderr(log):
        list(track(items, "Spelling", total, clock=count(0, seconds).__next__))
    return log.getvalue().splitlines()


def test_short_work_is_silent_away_from_a_terminal():
    assert logged("abc", seconds=2) == []


def test_long_work_is_told_in_lines_away_from_a_terminal():
    assert logged("abcd", seconds=12) == [
        "Spelling: 1 of 4, 12 seconds",
        "Spelling: 3 of 4, 36 seconds, about 12 seconds left",
        "Spelling: ended after 60 seconds",
    ]


def test_lines_are_few_however_long_the_work_is():
    hour = logged(range(3600), seconds=1)
    assert 30 < len(hour) < 40


def test_the_time_left_is_not_told_of_an_unknown_number():
    first = logged(iter("abc"), seconds=12)[0]
    assert first == "Spelling: 1, 12 seconds"


class TestNotebooks:
    @pytest.fixture(autouse=True)
    def _without_widgets(self, monkeypatch: pytest.MonkeyPatch):
        class ZMQInteractiveShell:
            """The class by which libraries know a notebook."""

        monkeypatch.setattr("builtins.get_ipython", ZMQInteractiveShell, raising=False)
        monkeypatch.setitem(sys.modules, "ipywidgets", None)

    def test_long_work_is_told_in_lines_where_there_are_no_widgets(self):
        assert logged("ab", seconds=12) == [
            "Spelling: 1 of 2, 12 seconds",
            "Spelling: ended after 36 seconds",
        ]

    def test_what_comes_is_announced(self, capsys: pytest.CaptureFixture[str]):
        tell = announcer()
        assert tell is not None
        tell("Measuring: 3 minutes")
        assert capsys.readouterr().err == "Measuring: 3 minutes\n"


def test_short_work_is_silent():
    assert shown("abc", seconds=0) == ""


def test_long_work_shows_a_bar_and_wipes_it():
    output = shown("abc", seconds=10)
    assert "Spelling" in output
    assert "1/3" in output
    assert output.endswith(ERASE_LINE)


def test_an_iterator_needs_its_total_told():
    assert "1/3" in shown(iter("abc"), seconds=10, total=3)


def test_an_error_in_the_loop_wipes_the_bar():
    def failing() -> Iterator[int]:
        yield from range(2)
        raise ZeroDivisionError

    terminal = Terminal()
    with redirect_stderr(terminal), pytest.raises(ZeroDivisionError):
        list(track(failing(), "Failing", 3, clock=count(0, 10).__next__))
    assert terminal.getvalue().endswith(ERASE_LINE)


class TestMeter:
    def test_it_shows_figures_and_wipes_them(self):
        terminal = Terminal()
        with redirect_stderr(terminal), meter("Training") as bar:
            bar.show(0.5, "loss 0.1234")
        assert "Training" in terminal.getvalue()
        assert "loss 0.1234" in terminal.getvalue()
        assert terminal.getvalue().endswith(ERASE_LINE)

    def test_it_shows_figures_in_lines_away_from_a_terminal(
        self, capsys: pytest.CaptureFixture[str]
    ):
        with meter("Training", clock=count(0, 30).__next__) as bar:
            bar.show(0.25, "loss 0.2345")
            bar.show(0.75, "loss 0.1234")
        assert capsys.readouterr().err.splitlines() == [
            "Training: 25%, loss 0.2345, 30 seconds",
            "Training: 75%, loss 0.1234, 60 seconds, about 15 seconds left",
            "Training: ended after 2 minutes",
        ]

    def test_short_training_is_silent_away_from_a_terminal(
        self, capsys: pytest.CaptureFixture[str]
    ):
        with meter("Training") as bar:
            bar.show(0.5, "loss 0.1234")
        assert capsys.readouterr() == ("", "")
