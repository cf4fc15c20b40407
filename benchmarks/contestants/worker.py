"""One contestant's process: a request a line on standard input, an answer a line on output.

    {"do": "load", "request": {…}, "denoiser": "sd15"}  ->  {"load_s": …, "stored_bytes": …, …}

Between two requests it sleeps on the pipe.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import torch

from . import process_memory, quality
from .denoisers import inputs
from .messages import CannotRunError, Loaded, Request

CALIBRATION = 4
"""Seeded calls that static ranges are taken from; the timed one is none of them."""


class Worker:
    """Answers the requests that are its methods."""

    def __init__(self) -> None:
        self.request: Request | None = None
        self.loaded: Loaded | None = None
        self.denoiser = ""
        self.quality: quality.Session | None = None

    def prepare(self, request: dict[str, Any], denoiser: str) -> dict[str, Any]:
        """Write the contestant's own files, calibrated in float32; the process then ends."""
        wanted = Request(**request)
        tool = tool_of(wanted)
        if hasattr(tool, "prepare"):
            tool.prepare(wanted, calibration(replace(wanted, dtype="float32"), denoiser))
        return {}

    def load(self, request: dict[str, Any], denoiser: str) -> dict[str, Any]:
        """Load, and quantize where the tool does that on loading."""
        self.request, self.denoiser = Request(**request), denoiser
        torch.set_num_threads(self.request.threads)
        tool = tool_of(self.request)
        samples = [] if hasattr(tool, "prepare") else calibration(self.request, denoiser)
        getattr(diffusers, self.request.class_name)  # imported now: code is not what is weighed
        process_memory.reset_peak()
        bare = process_memory.resident_bytes()
        start = time.perf_counter()
        with torch.no_grad():
            self.loaded = tool.load(self.request, samples)
        seconds = time.perf_counter() - start
        gc.collect()
        found = {
            "load_s": seconds,
            "bare_bytes": bare,
            "load_peak_bytes": process_memory.peak_bytes(),
            "stored_bytes": self.loaded.stored_bytes,
            "held_bytes": self.loaded.held_bytes,
            "note": self.loaded.note,
            "versions": {"torch": torch.__version__} | self.loaded.versions,
        }
        process_memory.reset_peak()
        return found | {"resident_bytes": process_memory.resident_bytes()}

    def output(self, batch: int, path: str) -> dict[str, Any]:
        """The first call of a batch size: its output goes to a file, and the peak starts anew."""
        process_memory.reset_peak()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        with torch.no_grad():
            output = self._call(batch)
        process_memory.synchronize()
        seconds = time.perf_counter() - start
        np.save(path, output.float().cpu().numpy())
        return {"first_call_s": seconds}

    def run(self, batch: int) -> dict[str, Any]:
        """Seconds of one call."""
        with torch.no_grad():
            arguments = self._inputs(batch)
            process_memory.synchronize()
            start = time.perf_counter()
            assert self.loaded is not None
            self.loaded.call(arguments)
            process_memory.synchronize()
            return {"seconds": time.perf_counter() - start}

    def peak(self) -> dict[str, Any]:
        """Highest memory since `output`, and what can be said of the contestant by now."""
        assert self.loaded is not None
        found: dict[str, Any] = {"peak_bytes": process_memory.peak_bytes()}
        if self.loaded.describe is not None:
            found["note"] = self.loaded.describe()
        if torch.cuda.is_available():
            found["device_peak_bytes"] = torch.cuda.max_memory_allocated()
        return found

    def pipeline(self, **arguments: Any) -> dict[str, Any]:
        """A whole pipeline with the contestant as its denoiser."""
        self.quality = quality.Session.of(tool_of, **arguments)
        return self.quality.figures()

    def generate(self, path: str, sampling: dict[str, Any]) -> dict[str, Any]:
        """Images of the prompts, uint8, into a file."""
        assert self.quality is not None
        self.quality.generate(path, sampling)
        return {}

    def replay(self, calls: str, path: str) -> dict[str, Any]:
        """Outputs of recorded denoiser calls, into a file."""
        assert self.quality is not None
        self.quality.replay(calls, path)
        return {}

    def _inputs(self, batch: int) -> dict[str, Any]:
        assert self.request is not None
        return inputs(self.denoiser, batch, self.request.torch_dtype, self.request.device)

    def _call(self, batch: int) -> torch.Tensor:
        assert self.loaded is not None
        return self.loaded.call(self._inputs(batch))


def tool_of(request: Request) -> Any:
    return importlib.import_module(f".{request.tool}", __package__)


def calibration(request: Request, denoiser: str) -> list[dict[str, Any]]:
    seeds = range(1, CALIBRATION + 1)
    return [inputs(denoiser, 1, request.torch_dtype, request.device, seed) for seed in seeds]


def serve(worker: Worker, answer: Callable[[dict[str, Any]], None]) -> None:
    for line in sys.stdin:
        message = json.loads(line)
        try:
            answer(getattr(worker, message.pop("do"))(**message))
        except CannotRunError as cause:
            answer({"error": str(cause)})
        except Exception as cause:
            traceback.print_exc()
            first = next(iter(str(cause).strip().splitlines()), "")
            answer({"error": f"{type(cause).__name__}: {first}"[:300]})


def main() -> None:
    # Libraries print to standard output; answers go to a copy of it that only we know.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    serve(Worker(), answer)


if __name__ == "__main__":
    main()
