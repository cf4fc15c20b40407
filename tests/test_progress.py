import io
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr
from itertools import count

import pytest

from mezzotint import _progress_lines
from mezzotint._progress import announcer, meter, part_done, stage, track, working
from mezzotint._progress_lines import Log

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
    monkeypatch.setattr(_progress_lines, "_FIRST_LINE", 2.0)


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
    assert logged("abc", seconds=0) == []


def test_long_work_is_told_in_lines_away_from_a_terminal():
    assert logged("abcd", seconds=12) == [
        "Spelling: 1 of 4, 12 seconds, about 36 seconds left",
        "Spelling: 2 of 4, 24 seconds, about 24 seconds left",
        "Spelling: 3 of 4, 36 seconds, about 12 seconds left",
        "Spelling: ended after 60 seconds",
    ]


def test_lines_are_few_however_long_the_work_is():
    hour = logged(range(3600), seconds=1)
    assert 30 < len(hour) < 40


def test_steps_of_an_item_are_told_as_well():
    log, clock = io.StringIO(), count(0, 12).__next__
    with redirect_stderr(log):
        for _ in track("ab", "Spelling", clock=clock):
            part_done(1, 4)
            part_done(2, 4)
    assert log.getvalue().splitlines() == [
        "Spelling: 0 of 2, step 1 of 4 of the next, 12 seconds, about 84 seconds left",
        "Spelling: 0 of 2, step 2 of 4 of the next, 24 seconds, about 72 seconds left",
        "Spelling: 1 of 2, 36 seconds, about 32 seconds left",
        "Spelling: 1 of 2, step 2 of 4 of the next, 60 seconds, about 19 seconds left",
        "Spelling: ended after 84 seconds",
    ]


def test_steps_are_told_to_the_innermost_loop():
    log = io.StringIO()
    with redirect_stderr(log):
        for _ in track("a", "Outer", clock=count(0, 0).__next__):
            for _ in track("b", "Inner", clock=count(0, 12).__next__):
                part_done(1, 2)
            part_done(1, 2)
    assert {line.partition(":")[0] for line in log.getvalue().splitlines()} == {"Inner"}


def test_steps_of_nothing_that_is_tracked_are_told_to_nobody(capsys):
    part_done(1, 2)
    assert capsys.readouterr() == ("", "")


def test_a_bar_moves_with_steps():
    terminal = Terminal()
    with redirect_stderr(terminal):
        for _ in track("a", "Spelling", clock=count(0, 10).__next__):
            part_done(1, 2)
    assert "━" in terminal.getvalue()


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_progress_lines, "_FIRST_LINE", 0.01)


def waited(capsys: pytest.CaptureFixture[str], lines: int) -> list[str]:
    """The first lines on standard error, as soon as there are so many."""
    text = ""
    while text.count("\n") < lines:
        time.sleep(0.01)
        text += capsys.readouterr().err
    return text.splitlines()[:lines]


@pytest.mark.usefixtures("_impatient")
class TestBeats:
    """Lines while nothing ends."""

    def test_one_item_that_takes_long(self, capsys):
        for each in track("ab", "Spelling"):
            if each == "b":
                capsys.readouterr()
                lines = waited(capsys, 2)
                assert all(line.startswith("Spelling: 1 of 2, 1 second") for line in lines)

    def test_work_without_items(self, capsys):
        with working("Spelling"):
            assert waited(capsys, 2) == ["Spelling: 1 second"] * 2
        assert capsys.readouterr().err.splitlines()[-1] == "Spelling: ended after 1 second"

    def test_only_the_innermost_work_tells_that_it_goes_on(self, capsys):
        with working("Outer"), stage("Inner"):
            lines = waited(capsys, 3)
        assert {line.partition(":")[0] for line in lines} == {"Inner"}

    def test_a_stage_tells_its_end_only_if_it_told_anything(self, capsys):
        with stage("Spelling"):
            pass
        assert capsys.readouterr().err == ""
        with stage("Spelling"):
            waited(capsys, 1)
        assert capsys.readouterr().err.splitlines()[-1].startswith("Spelling: ended after ")

    def test_an_error_ends_them(self, capsys):
        before = threading.active_count()

        def fail() -> None:
            with working("Spelling"):
                assert threading.active_count() == before + 1
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert threading.active_count() == before


def test_a_line_of_other_work_postpones_the_next(monkeypatch, capsys):
    now = 0.0
    log = Log("Writing", lambda: now)
    monkeypatch.setattr(_progress_lines._SAID, "last", 1.5)
    now = 2.0
    log.beat()
    assert capsys.readouterr().err == ""
    assert log.until_next == 1.5
    now = 3.5
    log.beat()
    assert capsys.readouterr().err == "Writing: 4 seconds\n"


def test_lines_within_an_item_tell_what_is_left_as_well(monkeypatch, capsys):
    monkeypatch.setattr(_progress_lines, "note_line", lambda: None)
    monkeypatch.setattr(_progress_lines._SAID, "last", 0.0)
    time_of = iter((0.0, 4.0, 8.0, 20.0, 70.0))
    log = Log("Spelling", lambda: next(time_of))
    log.show(0.1, "1 of 10")
    log.show(0.2, "2 of 10")
    log.beat()
    log.beat()
    assert capsys.readouterr().err.splitlines() == [
        "Spelling: 1 of 10, 4 seconds, about 36 seconds left",
        "Spelling: 2 of 10, 8 seconds, about 32 seconds left",
        "Spelling: 2 of 10, 20 seconds, about 20 seconds left",
        "Spelling: 2 of 10, 70 seconds",
    ]


def test_short_work_ends_without_a_word(capsys):
    with working("Spelling"):
        pass
    assert capsys.readouterr() == ("", "")


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
            "Spelling: 1 of 2, 12 seconds, about 12 seconds left",
            "Spelling: 2 of 2, 24 seconds",
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
            "Training: 25%, loss 0.2345, 30 seconds, about 2 minutes left",
            "Training: 75%, loss 0.1234, 60 seconds, about 15 seconds left",
            "Training: ended after 2 minutes",
        ]

    def test_short_training_is_silent_away_from_a_terminal(
        self, capsys: pytest.CaptureFixture[str]
    ):
        with meter("Training") as bar:
            bar.show(0.5, "loss 0.1234")
        assert capsys.readouterr() == ("", "")
