"""Metrics that kill the process in which they are taken, as a machine that fails would."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mezzotint.measuring import Noise, Pair


@dataclass(frozen=True)
class Deadly(Noise):
    """Kills its process, unless a file is there; which it leaves then.

    Attributes:
        mark: the file; None to kill each time.
    """

    mark: Path | None = None

    kind: ClassVar[str] = "deadly"

    def figures(self, pairs: Iterable[Pair]) -> dict[str, float]:
        if self.mark is None or not self.mark.exists():
            if self.mark is not None:
                self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().figures(pairs)
