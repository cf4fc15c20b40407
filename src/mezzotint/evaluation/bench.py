"""Latency and memory of two pipelines' denoisers, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import DiffusionPipeline
from rich.table import Table

from mezzotint.engines import engine_executions
from mezzotint.models import Sampling, check_pipeline, find_denoiser
from mezzotint.profiling import Latency, first_call, interleaved_medians
from mezzotint.runtime import Execution, module_bytes
from mezzotint.runtime.cpu import OWN, units


@dataclass(frozen=True)
class BenchedDenoiser:
    """One denoiser: seconds per call (median and span), bytes, and what computed it."""

    latency: Latency
    bytes: int
    executions: tuple[Execution, ...]


@dataclass(frozen=True)
class Bench:
    """The reference and the quantized denoiser, interleaved in one run."""

    reference: BenchedDenoiser
    quantized: BenchedDenoiser
    device: str
    threads: int
    batch: int

    @property
    def speedup(self) -> float:
        """Ratio of medians: above 1 the quantized one is faster."""
        return self.reference.latency.median / self.quantized.latency.median

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        kernels = [execution.to_dict() for execution in self.quantized.executions]
        return {
            "speedup": self.speedup,
            "reference": {"seconds": vars(self.reference.latency), "bytes": self.reference.bytes},
            "quantized": {
                "seconds": vars(self.quantized.latency),
                "bytes": self.quantized.bytes,
                "kernels": kernels,
            },
            "device": self.device,
            "threads": self.threads,
            "batch": self.batch,
            "unit": units.unit_name(),
        }

    def table(self) -> Table:
        """A row per denoiser, and how many layers run on which kernel."""
        table = Table(title=f"One denoiser call on {self.device}, batch {self.batch}")
        for column in ("denoiser", "median ms", "min–max ms", "speed-up", "bytes", "kernels"):
            table.add_column(column)
        rows = (("reference", self.reference, 1.0), ("quantized", self.quantized, self.speedup))
        for name, one, ratio in rows:
            span = f"{1e3 * one.latency.minimum:.1f}–{1e3 * one.latency.maximum:.1f}"
            counts: dict[str, int] = {}
            for execution in one.executions:
                label = f"{execution.kernel} ({execution.products})"
                counts[label] = counts.get(label, 0) + 1
            kernels = ", ".join(f"{n} × {label}" for label, n in counts.items()) or "torch"
            median = f"{1e3 * one.latency.median:.1f}"
            table.add_row(name, median, span, f"{ratio:.2f}×", f"{one.bytes:,}", kernels)
        if any(OWN.name in each.kernel.split(", ") for each in self.quantized.executions):
            table.caption = f"{OWN.name} multiplies with {units.unit_name()}"
        return table


@torch.no_grad()
def bench(
    reference: DiffusionPipeline,
    pipe: DiffusionPipeline,
    sampling: Sampling | None = None,
    *,
    repeats: int = 7,
    batch: int = 1,
) -> Bench:
    """Time one denoiser call of both pipelines on the same recorded input, A, B, A, B and so on.

    Args:
        reference: the original.
        pipe: the quantized one.
        sampling: images whose first ones the call is of; by default of one usual prompt.
        repeats: timed calls of each.
        batch: images per call.

    Raises:
        UsageError: fewer than one repeat.
    """
    check_pipeline(reference, "reference")
    denoisers = {"reference": find_denoiser(reference)[1], "quantized": find_denoiser(pipe)[1]}
    device = next(denoisers["reference"].parameters()).device
    call = first_call(reference, sampling, batch)
    latencies = interleaved_medians(
        {name: partial(call.run, denoiser) for name, denoiser in denoisers.items()},
        repeats=repeats,
    )
    benched = {
        name: BenchedDenoiser(latencies[name], module_bytes(denoiser), engine_executions(denoiser))
        for name, denoiser in denoisers.items()
    }
    return Bench(**benched, device=str(device), threads=torch.get_num_threads(), batch=batch)
