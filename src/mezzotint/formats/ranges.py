"""The choice of clipping ranges."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from mezzotint.errors import FormatError

MOST_STEPS = 1_000_000


@dataclass(frozen=True)
class RangeSearch:
    """Search of clipping ranges: the ratio of the full range that minimises Σ|w - ŵ|^p.

    `steps` ratios are tried from 1 down to `lowest`; one step is plain min-max. MPQ-DM searches 80
    steps with p = 2.4 (`MPQ_DM`); Qua²SeDiMo ten ratios with the same p.
    """

    steps: int = 1
    lowest: float = 0.2
    power: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MOST_STEPS:
            raise FormatError(
                f"steps is {self.steps}; a range search takes 1 (min-max) to {MOST_STEPS}"
            )
        if not 0 < self.lowest <= 1:
            raise FormatError(f"lowest is {self.lowest}; expected a ratio above 0 and at most 1")
        if not 0 < self.power <= sys.float_info.max:
            raise FormatError(f"power is {self.power}; expected a positive number")

    @property
    def ratios(self) -> tuple[float, ...]:
        """Every ratio tried, the full range first."""
        if self.steps == 1:
            return (1.0,)
        stride = (1.0 - self.lowest) / (self.steps - 1)
        return tuple(1.0 - stride * step for step in range(self.steps))


MINMAX = RangeSearch()
MSE = RangeSearch(steps=40)

#: The clip search of MPQ-DM (arXiv 2412.11549): ratios from 1.00 to 0.21.
MPQ_DM = RangeSearch(steps=80, lowest=0.21, power=2.4)

#: The clip search of Qua²SeDiMo (arXiv 2412.14628): ratios from 1.0 to 0.1.
QUA2SEDIMO = RangeSearch(steps=10, lowest=0.1, power=2.4)
