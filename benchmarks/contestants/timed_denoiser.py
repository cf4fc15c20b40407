"""Denoiser, device and folders that all contestants of a run share, and their expected memory."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from .denoisers import DENOISERS, ROOT, folder_of, parameters_of
from .environments import CONSTRAINTS, REQUIREMENTS, Environment
from .messages import Request
from .speed_contestants import Contestant
from .worker_process import WorkerProcess

SOURCE = ROOT / "src" / "mezzotint"
MARGIN = int(1.5 * 2**30)
"""Bytes for libraries and the temporaries of a call."""


@dataclass(frozen=True)
class TimedDenoiser:
    """One denoiser on one device.

    Attributes:
        denoiser: key of `DENOISERS`.
        dtype: of what is not quantized, where a contestant has no dtype of its own.
        cache: folder of environments, weights, prepared files, outputs and logs.
        timeout: seconds that one request may take.
    """

    denoiser: str
    device: str
    dtype: str
    threads: int
    cache: Path
    timeout: float

    @property
    def folder(self) -> Path:
        """Folder of the weights that all contestants read."""
        return folder_of(self.denoiser, self.cache)

    def request(self, contestant: Contestant) -> Request:
        """Request that tells the contestant's process what to load."""
        dtype = contestant.dtype or self.dtype
        name = "-".join((self.denoiser, contestant.files, dtype, self.device))
        return Request(
            tool=contestant.tool,
            options=contestant.options,
            folder=str(self.folder.resolve()),
            class_name=DENOISERS[self.denoiser].class_name,
            prepared=str(self.cache.resolve() / "prepared" / name),
            dtype=dtype,
            device=self.device,
            threads=self.threads,
        )

    def output(self, contestant: Contestant, batch: int) -> Path:
        """File for the contestant's output."""
        folder = self.cache.resolve() / "outputs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{self.denoiser}-{contestant.name}-{batch}.npy"

    def expected_bytes(self, contestant: Contestant) -> int:
        """Estimated memory of the contestant's process, rather too much than too little."""
        parameters = parameters_of(self.folder)
        size = getattr(torch, contestant.dtype or self.dtype).itemsize
        if contestant.tool.startswith("ours"):
            size = 1.25  # packed before it is loaded
        elif contestant.tool != "torch_floating":
            size *= 1.5  # loaded floating, then quantized
        return int(size * parameters) + MARGIN

    def worker(self, contestant: Contestant) -> WorkerProcess:
        """A fresh process in the contestant's environment."""
        environment = Environment(contestant.environment, self.cache)
        name = f"{self.denoiser}-{contestant.name}"
        return WorkerProcess(name, environment, self.threads, self.cache / "logs")

    def prepare(self, contestant: Contestant) -> None:
        """Have the contestant write its own files, unless they are there.

        Raises:
            FailedError: it cannot.
        """
        request = self.request(contestant)
        done = request.prepared_folder / ".done"
        wanted = json.dumps([_version(contestant), request.folder, contestant.files])
        if not contestant.prepares or (done.is_file() and done.read_text() == wanted):
            return
        shutil.rmtree(request.prepared_folder, ignore_errors=True)
        with self.worker(contestant) as worker:
            worker.ask("prepare", self.timeout, request=request.to_dict(), denoiser=self.denoiser)
        done.write_text(wanted)


def _version(contestant: Contestant) -> str:
    """Changes where what a contestant writes may change."""
    files = [CONSTRAINTS, *REQUIREMENTS.glob("*.txt")]
    if contestant.tool == "ours":
        files += [file for folder in ("formats", "calibration") for file in
                  (SOURCE / folder).glob("*.py")]  # fmt: skip
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(files))).hexdigest()
