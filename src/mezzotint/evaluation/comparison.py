"""Figures of one pipeline against its reference, as numbers, text and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.table import Table

from mezzotint.evaluation.alignment import RPrecision
from mezzotint.evaluation.bootstrap import Interval
from mezzotint.evaluation.distribution import MIN_IMAGES
from mezzotint.evaluation.error import StepError


@dataclass(frozen=True)
class Evaluation:
    """Figures of one pipeline against its reference; same prompts, same seeds.

    Attributes:
        psnr_db, ssim: means over image pairs, with 95% bootstrap intervals; of videos, each one's
            mean over its frames counts as one pair.
        error: SQNR of the noise prediction per timestep, on the reference's own calls.
        fd_lite0: Fréchet distance of EfficientNet-Lite0 features to the reference's images; None
            below two images, or without the packages of the extra `evaluation`.
        r_precision, reference_r_precision: where a contrastive model was given.
        r_precision_change: ours less the reference's, image by image, with its 95% bootstrap
            interval; an interval that contains 0 shows no loss.
        left_out: figure → why it could not be had.
        denoiser_bytes, reference_bytes: of the tensors in memory: those of the denoisers, and of
            whatever else is packed (`components` of the context).
        reference_weights: number of the parameters of the reference's, packed ones included.
        context: seeds, counts, versions, device.
    """

    psnr_db: Interval
    ssim: Interval
    error: Sequence[StepError]
    fd_lite0: float | None
    r_precision: RPrecision | None
    reference_r_precision: RPrecision | None
    r_precision_change: Interval | None
    denoiser_bytes: int
    reference_bytes: int
    reference_weights: int
    context: Mapping[str, Any]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def of_fp16(self) -> float:
        """Bytes as a share of the reference's in 16-bit floating point."""
        return self.denoiser_bytes / (2 * self.reference_weights)

    @property
    def sqnr_db(self) -> float:
        """Mean over timesteps of the noise prediction's SQNR."""
        return float(np.mean([step.sqnr_db for step in self.error]))

    def figures(self) -> dict[str, str]:
        """Column title → text, for tables and reports."""
        result = {
            "bytes": f"{self.denoiser_bytes:,}",
            "of fp16": f"{self.of_fp16:.3f}",
            "SQNR of ε (dB)": f"{self.sqnr_db:.2f}",
            f"PSNR{self._of_frames} (dB)": _spread(self.psnr_db, 2),
            f"SSIM{self._of_frames}": _spread(self.ssim, 4),
        }
        if simulated := _simulated(self.context):
            result["simulated"] = simulated
        if self.fd_lite0 is not None:
            pictures = self.context["images"] * self.context.get("frames", 1)
            biased = "" if pictures >= MIN_IMAGES else " (few images: biased)"
            result[f"FD-Lite0{self._of_frames}"] = f"{self.fd_lite0:.3f}{biased}"
        if self.r_precision is not None:
            value = self.r_precision
            result["R-precision"] = f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"
        if self.r_precision_change is not None:
            result["R-precision, change"] = _spread(self.r_precision_change, 3)
        return result

    def to_dict(self) -> dict[str, Any]:
        """JSON values; figures that are infinite (no error at all) become None."""
        value = {
            "psnr_db": vars(self.psnr_db),
            "ssim": vars(self.ssim),
            "sqnr_db": self.sqnr_db,
            "error_by_timestep": [vars(step) for step in self.error],
            "fd_lite0": self.fd_lite0,
            "r_precision": None if self.r_precision is None else vars(self.r_precision),
            "reference_r_precision": (
                None if self.reference_r_precision is None else vars(self.reference_r_precision)
            ),
            "r_precision_change": (
                None if self.r_precision_change is None else vars(self.r_precision_change)
            ),
            "denoiser_bytes": self.denoiser_bytes,
            "reference_bytes": self.reference_bytes,
            "of_fp16": self.of_fp16,
            "left_out": dict(self.left_out),
            "context": dict(self.context),
        }
        finite: dict[str, Any] = _finite(value)
        return finite

    def table(self) -> Table:
        """A row per figure, then one per timestep."""
        made = "videos" if self._of_frames else "images"
        table = Table(title=f"{self.context['images']} {made} against the reference")
        table.add_column("figure")
        table.add_column("value", justify="right")
        table.add_row("reference bytes", f"{self.reference_bytes:,}")
        for title, text in self.figures().items():
            table.add_row(title, text)
        if self.reference_r_precision is not None:
            table.add_row("R-precision, reference", f"{self.reference_r_precision.value:.3f}")
        for title, reason in self.left_out.items():
            table.add_row(title, f"left out: {reason}")
        for step in self.error:
            span = f"[{step.low:.2f}, {step.high:.2f}]"
            table.add_row(f"SQNR of ε at t = {step.timestep:g} (dB)", f"{step.sqnr_db:.2f} {span}")
        return table

    @property
    def _of_frames(self) -> str:
        """Part of a title that tells pictures from frames of videos."""
        return " of frames" if "frames" in self.context else ""


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _simulated(context: Mapping[str, Any]) -> str:
    """Parts of a pipeline that are simulated, for people; empty where none is."""
    inputs, attention = context.get("simulated_inputs"), context.get("simulated_attention")
    found = [f"inputs of {inputs} layers"] if inputs else []
    return "; ".join(found + ([f"attention: {attention}"] if attention else []))


def _spread(interval: Interval, digits: int) -> str:
    return f"{interval.value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
