"""Stages of `quantize` that say beforehand how long they will take, and what they took."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mezzotint._progress import duration

_ANNOUNCED = re.compile(
    r"(?P<stage>[\w ]+): (?P<units>[\d,]+) [\w ]+ at (?P<each>[\d.e-]+) s each: about .*"
)


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
        over = f"{announced['stage']}: ended after"
        ends = (
            when for when, each in lines[place + 1 :]
            if each.startswith(over) or _ANNOUNCED.fullmatch(each)
        )  # fmt: skip
        found.append(Stage(line, seconds, next(ends, lines[-1][0]) - began))
    return found


def markdown(found: list[Stage], total: float) -> str:
    """The table."""
    rows = ["| announced | took | ratio |", "|---|---|---|"]
    rows += [f"| {each.line} | {duration(each.taken)} | {each.ratio:.2f} |" for each in found]
    announced, taken = sum(each.announced for each in found), sum(each.taken for each in found)
    rows.append(f"| **all stages: {duration(announced)}** | {duration(taken)} | "
                f"**{taken / announced:.2f}** |")  # fmt: skip
    rows.append(f"| the whole command | {duration(total)} | |")
    return "\n".join(rows) + "\n"
