"""Stages of `quantize` that say beforehand how long they will take, and what they took."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mezzotint._progress import OVERALL
from mezzotint._progress_lines import duration

_ANNOUNCED = re.compile(
    r"(?P<stage>[\w ]+): (?P<units>[\d,]+) [\w ]+ at (?P<each>[\d.e-]+) s each"
    r"(, after (?P<before>[\d.e-]+) s of preparation)?: about .*"
)
_PART = re.compile(r"(?P<stage>[\w -]+?) (?P<count>[\d,]+) (?P<unit>second|minute|hour|day)s?")
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_PROGRESS = re.compile(r"(?P<stage>[\w -]+): (ended after )?\d[\d,]*( of [\d,]+)?.*")


@dataclass(frozen=True)
class Stage:
    """A stage of the work, as it was announced, and as it went.

    Attributes:
        line: that announced it.
        announced: seconds: units, times what each takes.
        taken: seconds until the next stage was announced or said to have ended.
    """

    line: str
    announced: float
    taken: float

    @property
    def ratio(self) -> float:
        """Time taken, as a multiple of what was announced."""
        return self.taken / self.announced


def stages(lines: list[tuple[float, str]]) -> list[Stage]:
    """Announced stages: each lasts until its end is told, or until the next is announced."""
    found = []
    for place, (began, line) in enumerate(lines):
        announced = _ANNOUNCED.fullmatch(line)
        if announced is None:
            continue
        seconds = int(announced["units"].replace(",", "")) * float(announced["each"])
        seconds += float(announced["before"] or 0)
        over = f"{announced['stage']}: ended after"
        ends = (
            when for when, each in lines[place + 1 :]
            if each.startswith(over) or _ANNOUNCED.fullmatch(each)
        )  # fmt: skip
        found.append(Stage(line, seconds, next(ends, lines[-1][0]) - began))
    return found


@dataclass(frozen=True)
class Whole:
    """All the work of a command, as it was announced, and as it went.

    Attributes:
        line: that announced it.
        stages: stage → seconds that were announced for it.
        told_after: seconds from the start of the command to that line.
        taken: seconds of the work that was announced: from that line on.
    """

    line: str
    stages: Mapping[str, float]
    told_after: float
    taken: float

    @property
    def announced(self) -> float:
        """Seconds of all stages together."""
        return sum(self.stages.values())

    @property
    def ratio(self) -> float:
        """Time taken, as a multiple of what was announced."""
        return self.taken / self.announced


def whole(lines: list[tuple[float, str]], total: float) -> Whole:
    """The line that announced all, against the time of the whole command.

    Args:
        lines: of standard error, with the second that each came in.
        total: seconds of the whole command.

    Raises:
        ValueError: there is no such line.
    """
    for when, line in lines:
        if line.startswith(OVERALL):
            parts = line.removeprefix(OVERALL).partition(": ")[2].split(", ")
            found = [part for each in parts if (part := _PART.fullmatch(each)) is not None]
            seconds = {
                each["stage"]: int(each["count"].replace(",", "")) * _SECONDS[each["unit"]]
                for each in found
            }
            return Whole(line, seconds, when, total - when)
    raise ValueError("no line announces all the work")


def taken_by_stage(lines: list[tuple[float, str]]) -> dict[str, float]:
    """Stage → seconds until its last line says that it ended, of all its turns together.

    Stages of less than 2 s have no line.
    """
    found: dict[str, float] = {}
    began: dict[str, float] = {}
    before = 0.0
    for when, line in lines:
        told = None if _ANNOUNCED.fullmatch(line) else _PROGRESS.fullmatch(line)
        if told is not None:
            name = told["stage"].lower()
            began.setdefault(name, max(before, when - 2))
            if told[2]:
                found[name] = found.get(name, 0.0) + when - began.pop(name)
                before = when
    return found


def markdown(
    found: list[Stage], overall: Whole, by_stage: Mapping[str, float], total: float
) -> str:
    """The tables: the whole work by stage, then stages that are announced as they begin."""
    rows = ["| stage | announced | took |", "|---|---|---|"]
    rows += [
        f"| {name} | {duration(seconds)} | "
        f"{duration(by_stage[name]) if name in by_stage else '–'} |"
        for name, seconds in overall.stages.items()
    ]
    rows += [
        f"| **in all** | **{duration(overall.announced)}** | **{duration(overall.taken)}, "
        f"{overall.ratio:.2f} times** |",
        f"| until that was told | | {duration(overall.told_after)} |",
        f"| the whole command | | {duration(total)} |",
        "",
        "| announced as it began | took | ratio |",
        "|---|---|---|",
    ]
    rows += [f"| {each.line} | {duration(each.taken)} | {each.ratio:.2f} |" for each in found]
    return "\n".join(rows) + "\n"
