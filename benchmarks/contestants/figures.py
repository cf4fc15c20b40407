"""Figures of images and outputs against a baseline, and their differences with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import stats

from mezzotint.evaluation import (
    Baseline,
    Interval,
    RPrecision,
    bootstrap_interval,
    first_ranks,
    frechet_distance,
    lite0_features,
    paired_difference_interval,
    psnr,
    sqnr,
    ssim,
)

GROUPS = 10
"""Groups of the jackknife: a Fréchet distance takes seconds, too long for 1,000s of resamples."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Images and outputs of one contestant, for the baseline's prompts and calls.

    Attributes:
        images: uint8 [n, H, W, 3].
        outputs: of each of the baseline's calls, [batch, …].
    """

    baseline: Baseline
    images: np.ndarray
    outputs: Sequence[np.ndarray]

    @cached_property
    def psnr(self) -> np.ndarray:
        return psnr(self.baseline.images, self.images)

    @cached_property
    def ssim(self) -> np.ndarray:
        return ssim(self.baseline.images, self.images)

    @cached_property
    def noise(self) -> np.ndarray:
        """Σ(y - ŷ)² / Σy² of each sample of each call."""
        return noise_of(self.baseline, self.outputs)

    @cached_property
    def features(self) -> np.ndarray:
        return lite0_features(self.images)

    @cached_property
    def first_ranks(self) -> np.ndarray:
        contrastive, prompts = self.baseline.contrastive, self.baseline.sampling.prompts
        assert contrastive is not None
        texts, images = contrastive.embed_texts(prompts), contrastive.embed_images(self.images)
        return first_ranks(images, texts, captions=prompts)

    def to_dict(self) -> dict[str, Any]:
        """Figures against the baseline."""
        distance = frechet_distance(self.baseline.features, self.features)
        candidates = min(100, len(set(self.baseline.sampling.prompts)))
        return {
            "sqnr_db": decibels(bootstrap_interval(self.noise)),
            "psnr_db": vars(bootstrap_interval(self.psnr)),
            "ssim": vars(bootstrap_interval(self.ssim)),
            "fd_lite0": distance,
            "r_precision": vars(RPrecision.of(self.first_ranks, candidates)),
        }


def differences(ours: Sample, theirs: Sample) -> dict[str, Any]:
    """Ours less theirs, pair by pair, with 95% intervals.

    Bootstrap for means over images; for the SQNR the ratio of the two mean noises, in dB; for
    FD-Lite0 a jackknife over groups of images.
    """
    return {
        "sqnr_db": sqnr_difference(ours.noise, theirs.noise),
        "psnr_db": vars(paired_difference_interval(ours.psnr, theirs.psnr)),
        "ssim": vars(paired_difference_interval(ours.ssim, theirs.ssim)),
        "fd_lite0": fd_difference(ours, theirs),
        "r_precision": vars(paired_difference_interval(ours.first_ranks, theirs.first_ranks)),
    }


def noise_of(baseline: Baseline, outputs: Sequence[np.ndarray]) -> np.ndarray:
    found = []
    for call, output in zip(baseline.calls, outputs, strict=True):
        assert call.output is not None
        decibel = sqnr(call.output, torch.from_numpy(np.asarray(output)), per_sample=True)
        found.append((10 ** (-decibel / 10)).numpy())
    return np.concatenate(found)


def decibels(noise: Interval) -> dict[str, float]:
    """An interval of noise-to-signal ratios as one of SQNR: the bounds change places."""
    value, low, high = (-10 * math.log10(max(v, 1e-30)) for v in (noise.value, noise.high,
                                                                  noise.low))  # fmt: skip
    return {"value": value, "low": low, "high": high}


def sqnr_difference(
    ours: np.ndarray, theirs: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> dict[str, float]:
    """10 log₁₀(mean noise of theirs / of ours); samples are drawn together."""
    rng, count = np.random.default_rng(seed), len(ours)

    def gain(index: np.ndarray | slice) -> float:
        return float(10 * np.log10(theirs[index].mean() / ours[index].mean()))

    drawn = [gain(rng.integers(count, size=count)) for _ in range(resamples)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": gain(slice(None)), "low": float(low), "high": float(high)}


def fd_difference(ours: Sample, theirs: Sample) -> dict[str, float]:
    """FD-Lite0 of ours less that of theirs, to the same reference images."""
    reference = ours.baseline.features

    def difference(kept: np.ndarray) -> float:
        base = reference[kept]
        return frechet_distance(base, ours.features[kept]) - frechet_distance(
            base, theirs.features[kept]
        )

    return jackknife(difference, len(reference))


def jackknife(
    statistic: Callable[[np.ndarray], float], count: int, *, groups: int = GROUPS, seed: int = 0
) -> dict[str, float]:
    """The statistic of rows 0 … count - 1 and its 95% interval, leaving out a group at a time."""
    rows = np.random.default_rng(seed).permutation(count)
    whole = statistic(np.arange(count))
    parts = [part for part in np.array_split(rows, groups) if len(part)]
    left = np.array([statistic(np.setdiff1d(rows, part)) for part in parts])
    number = len(parts)
    error = math.sqrt((number - 1) / number * float(np.square(left - left.mean()).sum()))
    reach = float(stats.t.ppf(0.975, number - 1)) * error
    return {"value": whole, "low": whole - reach, "high": whole + reach}
