"""The driver's end of a contestant's process."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import time
from pathlib import Path
from typing import Any

from .environments import Environment
from .process_memory import available_bytes

BENCHMARKS = Path(__file__).resolve().parents[1]
RESERVE = 700 * 2**20
"""Less free memory than this ends a contestant, before the system ends somebody else."""


def has_room(needed: int) -> bool:
    """True if that many bytes can be had, and the reserve be kept; also where nobody can tell."""
    left = available_bytes()
    return left is None or left > needed + RESERVE


class FailedError(Exception):
    """A contestant cannot do what it is asked; the text is for the table."""


class OutOfMemoryError(FailedError):
    """It was ended because too little memory was left."""


class WorkerProcess:
    """A running process; close it, or use it in a `with` block."""

    def __init__(self, name: str, environment: Environment, threads: int, logs: Path) -> None:
        self.name = name
        logs.mkdir(parents=True, exist_ok=True)
        self.log = logs / f"{name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(  # noqa: S603  (our own interpreter and module)
                [environment.python(), "-W", "ignore", "-m", "contestants.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=_variables(environment, threads),
            )

    def ask(self, do: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        """Send one request and wait.

        Raises:
            FailedError: the contestant says why it cannot, dies, or takes longer than `timeout`
                seconds.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do} | arguments) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise FailedError(self._death()) from None
        line = self._wait(time.monotonic() + timeout, timeout)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise FailedError(answer["error"])
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _wait(self, end: float, timeout: float) -> str:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not selector.select(0.5):
                left = available_bytes()
                if left is not None and left < RESERVE:
                    self.close()
                    raise OutOfMemoryError("needs more memory than this machine has free")
                if time.monotonic() > end:
                    self.close()
                    raise FailedError(f"took longer than {timeout:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise FailedError(self._death())
        return line

    def _death(self) -> str:
        code = self.process.wait()
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines()]
        last = next((line for line in reversed(lines) if line), "")
        return f"its process ended with code {code}: {last}"[:300]


def _variables(environment: Environment, threads: int) -> dict[str, str]:
    count = str(threads)
    paths = [str(BENCHMARKS), str(BENCHMARKS.parent / "src")]
    binaries = str(Path(environment.python()).parent)
    return os.environ | {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        # Threads that spin after their work would disturb whoever is timed next.
        "OMP_WAIT_POLICY": "passive",
        "KMP_BLOCKTIME": "0",
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": os.pathsep.join([binaries, os.environ.get("PATH", "")]),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
