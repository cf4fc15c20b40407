"""What holds for all contestants of a run, and what each is expected to need."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from .client import Contender
from .denoisers import DENOISERS, ROOT, folder_of, parameters_of
from .environments import CONSTRAINTS, REQUIREMENTS, Environment
from .field import Entry
from .values import Request

SOURCE = ROOT / "src" / "mezzotint"
MARGIN = int(1.5 * 2**30)
"""Bytes for libraries and the temporaries of a call."""


@dataclass(frozen=True)
class Setting:
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
        """Of the weights that all contestants read."""
        return folder_of(self.denoiser, self.cache)

    def request(self, entry: Entry) -> Request:
        """What `entry` is asked to load."""
        dtype = entry.dtype or self.dtype
        name = "-".join((self.denoiser, entry.files, dtype, self.device))
        return Request(
            tool=entry.tool,
            options=entry.options,
            folder=str(self.folder.resolve()),
            class_name=DENOISERS[self.denoiser].class_name,
            prepared=str(self.cache.resolve() / "prepared" / name),
            dtype=dtype,
            device=self.device,
            threads=self.threads,
        )

    def output(self, entry: Entry, batch: int) -> Path:
        """File for the contestant's output."""
        folder = self.cache.resolve() / "outputs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{self.denoiser}-{entry.name}-{batch}.npy"

    def expected_bytes(self, entry: Entry) -> int:
        """What the contestant's process may come to hold, roughly and rather too much."""
        parameters = parameters_of(self.folder)
        size = getattr(torch, entry.dtype or self.dtype).itemsize
        if entry.tool.startswith("ours"):
            size = 1.25  # packed before it is loaded
        elif entry.tool != "torch_floating":
            size *= 1.5  # loaded floating, then quantized
        return int(size * parameters) + MARGIN

    def contender(self, entry: Entry) -> Contender:
        """A fresh process in the contestant's environment."""
        environment = Environment(entry.environment, self.cache)
        name = f"{self.denoiser}-{entry.name}"
        return Contender(name, environment, self.threads, self.cache / "logs")

    def prepare(self, entry: Entry) -> None:
        """Have the contestant write its own files, unless they are there.

        Raises:
            FailedError: it cannot.
        """
        request = self.request(entry)
        done = request.prepared_folder / ".done"
        wanted = json.dumps([_version(entry), request.folder, entry.files])
        if not entry.prepares or (done.is_file() and done.read_text() == wanted):
            return
        shutil.rmtree(request.prepared_folder, ignore_errors=True)
        with self.contender(entry) as contender:
            contender.ask(
                "prepare", self.timeout, request=request.to_dict(), denoiser=self.denoiser
            )
        done.write_text(wanted)


def _version(entry: Entry) -> str:
    """Changes where what a contestant writes may change."""
    files = [CONSTRAINTS, *REQUIREMENTS.glob("*.txt")]
    if entry.tool == "ours":
        files += [file for folder in ("formats", "calibration") for file in
                  (SOURCE / folder).glob("*.py")]  # fmt: skip
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(files))).hexdigest()
