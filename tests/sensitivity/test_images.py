"""Similarity of images with one layer changed: exact, journaled, and the first call replayed."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from mezzotint.errors import CalibrationError
from mezzotint.models import Sampling, find_denoiser, generate, inventory
from mezzotint.plan import Choice
from mezzotint.runtime import Calibration
from mezzotint.sensitivity import (
    ImageReference,
    Journal,
    Similarity,
    Unit,
    measure_images,
    measure_unit_images,
    noise_floor,
)
from tests.sensitivity.restoring import assert_restored, state

CALIBRATION = Calibration()
SAMPLING = Sampling(("owl", "red heart", "tree"), batch=2)
W2, W8 = Choice("int2/channel"), Choice("int8/channel")


def layers(pipe: DiffusionPipeline) -> list[str]:
    """From the first to one of the last."""
    names = [layer.name for layer in inventory(find_denoiser(pipe)[1]) if layer.supported]
    return names[:: len(names) // 4]


class TestReference:
    def test_its_images_are_the_pipeline_s_before_rounding(self, pipe: DiffusionPipeline):
        found = ImageReference.of(pipe, SAMPLING).images
        assert (found.dtype, tuple(found.shape)) == (torch.float32, (3, 3, 16, 16))
        rounded = (found * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(rounded, generate(pipe, SAMPLING))
        assert bool((found * 255 != (found * 255).round()).any())

    def test_it_keeps_each_batch_s_first_call(self, pipe: DiffusionPipeline):
        reference = ImageReference.of(pipe, SAMPLING)
        assert len(reference.calls) == 2
        assert_restored(reference.denoiser, state(reference.denoiser))

    def test_nan_is_refused(self, unet_pipe: DiffusionPipeline):
        unet_pipe.vae.decoder.conv_out.bias.data[0] = math.nan
        with pytest.raises(CalibrationError, match="images hold NaN"):
            ImageReference.of(unet_pipe, SAMPLING)


class TestMeasureImages:
    @pytest.mark.parametrize("steps", [1, 3])
    def test_replayed_or_not_the_similarities_are_equal(self, pipe: DiffusionPipeline, steps: int):
        reference = ImageReference.of(pipe, replace(SAMPLING, steps=steps))
        units = [Unit(name, W2) for name in layers(pipe)]
        before = state(reference.denoiser)
        with Journal(None, {}) as first, Journal(None, {}) as second:
            replayed = measure_images(reference, units, CALIBRATION, first)
            full = measure_images(reference, units, CALIBRATION, second, cache_bytes=0)
        assert replayed == full
        assert list(replayed.scores) == [unit.layer for unit in units]
        assert all(score[W2].ssim < 1 for score in replayed.scores.values())
        assert_restored(reference.denoiser, before)

    def test_the_first_call_skips_what_runs_before_the_layer(self, unet_pipe: DiffusionPipeline):
        reference = ImageReference.of(unet_pipe, replace(SAMPLING, steps=3))
        counts: Counter[str] = Counter()
        forward = unet_pipe.unet.conv_in.forward
        unet_pipe.unet.conv_in.forward = lambda x: counts.update(["run"]) or forward(x)
        units = [Unit("conv_out", Choice(f"int{bits}/channel")) for bits in (2, 4)]

        def runs(cache_bytes: int | None) -> int:
            counts.clear()
            with Journal(None, {"noise floor": "kept"}) as journal:
                journal.add("noise floor | ssim", {"ssim": 1.0})
                measure_images(reference, units, CALIBRATION, journal, cache_bytes=cache_bytes)
            return counts["run"]

        batches, steps, trace_and_advance = 2, 3, 2
        assert runs(0) == len(units) * batches * steps
        assert runs(None) == batches * (len(units) * (steps - 1) + trace_and_advance)

    def test_nothing_changed_gives_exactly_one(self, pipe: DiffusionPipeline):
        reference = ImageReference.of(pipe, SAMPLING)
        assert noise_floor(reference) == Similarity(1.0)
        assert (
            measure_unit_images(reference, Unit(layers(pipe)[0], Choice()), CALIBRATION).ssim == 1
        )
        with Journal(None, {}) as journal:
            assert measure_images(reference, [], CALIBRATION, journal).floor == Similarity(1.0)

    def test_more_bits_are_more_alike(self, unet_pipe: DiffusionPipeline):
        reference = ImageReference.of(unet_pipe, SAMPLING)
        units = [Unit("conv_in", choice) for choice in (W2, W8)]
        with Journal(None, {}) as journal:
            scores = measure_images(reference, units, CALIBRATION, journal).scores["conv_in"]
        assert scores[W2].ssim < scores[W8].ssim < 1

    def test_finished_units_are_not_generated_again(
        self, unet_pipe: DiffusionPipeline, tmp_path: Path
    ):
        reference = ImageReference.of(unet_pipe, SAMPLING)
        units = [Unit(name, W2) for name in layers(unet_pipe)[:2]]
        with Journal(tmp_path / "journal", {}) as journal:
            first = measure_images(reference, units, CALIBRATION, journal)
        unet_pipe.unet.register_forward_pre_hook(lambda module, args: pytest.fail("was run"))
        with Journal(tmp_path / "journal", {}) as journal:
            assert measure_images(reference, units, CALIBRATION, journal) == first

    def test_its_entries_stand_beside_those_of_other_metrics(self, unet_pipe: DiffusionPipeline):
        reference, unit = ImageReference.of(unet_pipe, SAMPLING), Unit("conv_in", W2)
        with Journal(None, {}) as journal:
            journal.add(unit.name, {"noise": 0.5})
            measure_images(reference, [unit], CALIBRATION, journal)
            assert list(journal.entries) == [
                "conv_in | int2/channel | float",
                "noise floor | ssim",
                "conv_in | int2/channel | float | ssim",
            ]

    def test_nan_names_the_layer(self, unet_pipe: DiffusionPipeline):
        reference = ImageReference.of(unet_pipe, SAMPLING)
        unet_pipe.vae.decoder.conv_out.bias.data[0] = math.nan
        with pytest.raises(CalibrationError, match=r"layer conv_in at int2/channel .*NaN"):
            measure_unit_images(reference, Unit("conv_in", W2), CALIBRATION)
