"""A process of its own that loads packed pipelines by stock diffusers, and draws.

It is started once for all pipelines: importing torch and diffusers takes long.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

SERVE = """
import sys, warnings
import numpy
import mezzotint  # registers the quantization method
from diffusers import DiffusionPipeline
from tests.pipelines.registry import PIPELINES

for line in sys.stdin:
    title, folder, output = line.rstrip("\\n").split("\\t")
    tiny = next(each for each in PIPELINES if each.title == title)
    numpy.save(output, tiny.drawn(DiffusionPipeline.from_pretrained(folder)))
    print("done", flush=True)
"""


class FreshProcess:
    """Stock diffusers in a process of its own; starts with the first pipeline that is drawn."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def drawn(self, title: str, folder: Path) -> np.ndarray:
        """Images of a tiny pipeline that is loaded from a folder.

        Raises:
            RuntimeError: the process has ended, with its last words.
        """
        output = folder.with_suffix(".npy")
        process = self._process = self._process or self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        print(title, folder, output, sep="\t", file=process.stdin, flush=True)
        if process.stdout.readline() != "done\n":
            _, errors = process.communicate()
            raise RuntimeError(errors)
        return np.load(output)

    def end(self) -> None:
        """End it, where it was ever started."""
        if self._process is not None:
            self._process.communicate()

    @staticmethod
    def _started() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
