"""Similarity of images with one layer changed: exact, journaled, and the first call replayed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from mezzotint._journal import Journal
from mezzotint.errors import CalibrationError, UsageError
from mezzotint.measuring import (
    CACHE_BYTES,
    Change,
    Figures,
    ImageError,
    InProcess,
    LayerChange,
    Metric,
    Noise,
    Original,
    PlanChange,
    Similarity,
    Task,
    Unchanged,
    measure,
    with_denoiser,
)
from mezzotint.models import Sampling, find_denoiser, generate, inventory
from mezzotint.plan import Choice, Plan
from mezzotint.runtime import Calibration, packed_copy
from tests.measuring.restoring import assert_restored, state

SAMPLING = Sampling(("owl", "red heart", "tree"), batch=2)
W2, W8 = Choice("int2/channel"), Choice("int8/channel")


def original(pipe: DiffusionPipeline, sampling: Sampling = SAMPLING) -> Original:
    return Original(find_denoiser(pipe)[1], (), Calibration(), pipe, sampling)


def figures(
    model: Original,
    changes: Sequence[Change],
    metric: Metric | None = None,
    *,
    journal: Journal | None = None,
    cache_bytes: int | None = CACHE_BYTES,
) -> list[Figures]:
    tasks = [Task(change, metric or Similarity()) for change in changes]
    executor = InProcess(model, cache_bytes=cache_bytes)
    return measure(tasks, executor, journal or Journal(None, {}))


def layers(pipe: DiffusionPipeline) -> list[str]:
    """From the first to one of the last."""
    names = [layer.name for layer in inventory(find_denoiser(pipe)[1]) if layer.supported]
    return names[:: len(names) // 4]


class TestOriginal:
    def test_its_images_are_the_pipeline_s_before_rounding(self, pipe: DiffusionPipeline):
        found = original(pipe).images.images
        assert (found.dtype, tuple(found.shape)) == (torch.float32, (3, 3, 16, 16))
        rounded = (found * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(rounded, generate(pipe, SAMPLING))
        assert bool((found * 255 != (found * 255).round()).any())

    def test_it_keeps_each_batch_s_first_call(self, pipe: DiffusionPipeline):
        model = original(pipe)
        assert len(model.images.calls) == 2
        assert_restored(model.denoiser, state(model.denoiser))

    def test_another_decoder_has_another_digest(self, unet_pipe: DiffusionPipeline):
        before = original(unet_pipe).images.digest
        for weight in unet_pipe.vae.parameters():
            weight.data.mul_(1.3)
        assert original(unet_pipe).images.digest != before

    def test_nan_is_refused(self, unet_pipe: DiffusionPipeline):
        unet_pipe.vae.decoder.conv_out.bias.data[0] = math.nan
        with pytest.raises(CalibrationError, match="images hold NaN"):
            original(unet_pipe).images  # noqa: B018

    def test_a_bare_denoiser_makes_none(self, unet_pipe: DiffusionPipeline):
        with pytest.raises(UsageError, match="a bare denoiser does not make"):
            Original(unet_pipe.unet).images  # noqa: B018


class TestSimilarity:
    @pytest.mark.parametrize("steps", [1, 3])
    def test_replayed_or_not_the_figures_are_equal(self, pipe: DiffusionPipeline, steps: int):
        model = original(pipe, replace(SAMPLING, steps=steps))
        changes = [LayerChange(name, W2) for name in layers(pipe)]
        before = state(model.denoiser)
        replayed = figures(model, changes)
        assert replayed == figures(model, changes, cache_bytes=0)
        assert all(one["ssim"] < 1 for one in replayed)
        assert_restored(model.denoiser, before)

    def test_the_first_call_skips_what_runs_before_the_layer(self, unet_pipe: DiffusionPipeline):
        model = original(unet_pipe, replace(SAMPLING, steps=3))
        assert len(model.images.calls) == 2
        counts: Counter[str] = Counter()
        forward = unet_pipe.unet.conv_in.forward
        unet_pipe.unet.conv_in.forward = lambda x: counts.update(["run"]) or forward(x)
        changes = [LayerChange("conv_out", Choice(f"int{bits}/channel")) for bits in (2, 4)]

        def runs(cache_bytes: int | None) -> int:
            counts.clear()
            figures(model, changes, cache_bytes=cache_bytes)
            return counts["run"]

        batches, steps, trace_and_advance = 2, 3, 2
        assert runs(0) == len(changes) * batches * steps
        assert runs(None) == batches * (len(changes) * (steps - 1) + trace_and_advance)

    def test_nothing_changed_gives_exactly_one(self, pipe: DiffusionPipeline):
        changes = [Unchanged(), LayerChange(layers(pipe)[0], Choice())]
        assert figures(original(pipe), changes) == [{"ssim": 1.0}, {"ssim": 1.0}]

    def test_more_bits_are_more_alike(self, unet_pipe: DiffusionPipeline):
        changes = [LayerChange("conv_in", choice) for choice in (W2, W8)]
        narrow, wide = figures(original(unet_pipe), changes)
        assert narrow["ssim"] < wide["ssim"] < 1
        assert Similarity().loss(narrow) > Similarity().loss(wide) > 0

    def test_finished_tasks_are_not_generated_again(
        self, unet_pipe: DiffusionPipeline, tmp_path: Path
    ):
        changes = [LayerChange(name, W2) for name in layers(unet_pipe)[:2]]
        with Journal(tmp_path / "journal", {}) as journal:
            first = figures(original(unet_pipe), changes, journal=journal)
        unet_pipe.unet.register_forward_pre_hook(lambda module, args: pytest.fail("was run"))
        with Journal(tmp_path / "journal", {}) as journal:
            assert figures(original(unet_pipe), changes, journal=journal) == first

    def test_its_entries_stand_beside_those_of_other_metrics(self, unet_pipe: DiffusionPipeline):
        change, journal = LayerChange("conv_in", W2), Journal(None, {})
        journal.add(Task(change, Noise()).key, {"noise": 0.5})
        figures(original(unet_pipe), [change], journal=journal)
        assert list(journal.entries) == [
            "conv_in | int2/channel | float | mse, nearest | noise",
            "conv_in | int2/channel | float | mse, nearest | ssim",
        ]

    def test_nan_names_the_layer(self, unet_pipe: DiffusionPipeline):
        model = original(unet_pipe)
        assert len(model.images.calls) == 2
        unet_pipe.vae.decoder.conv_out.bias.data[0] = math.nan
        before = state(unet_pipe.unet)
        with pytest.raises(CalibrationError, match=r"layer conv_in at int2/channel .*NaN"):
            figures(model, [LayerChange("conv_in", W2)])
        assert_restored(unet_pipe.unet, before)


class TestImageError:
    def test_it_is_the_mean_squared_difference_of_the_first_prompts(
        self, unet_pipe: DiffusionPipeline
    ):
        model, plan = original(unet_pipe), Plan({"conv_in": W2})
        (found,) = figures(model, [PlanChange(plan)], ImageError(2))
        packed = with_denoiser(unet_pipe, packed_copy(model.denoiser, plan, model.calibration))
        sampling = replace(SAMPLING, prompts=SAMPLING.prompts[:2])
        images = original(packed, sampling).images.images
        expected = (images - model.images.images[:2]).square().mean()
        assert found["mse"] == float(expected) > 0

    def test_how_many_prompts_is_part_of_the_key(self):
        keys = {Task(Unchanged(), ImageError(count)).key for count in (None, 1, 2)}
        assert len(keys) == 3

    def test_no_prompt_is_too_few(self):
        with pytest.raises(UsageError, match="count: is 0"):
            ImageError(0)

    def test_a_ruined_plan_is_infinitely_bad(self, unet_pipe: DiffusionPipeline, tmp_path: Path):
        model = original(unet_pipe)
        assert len(model.images.calls) == 2
        unet_pipe.vae.decoder.conv_out.bias.data[0] = math.nan
        changes = [PlanChange(Plan({"conv_in": W2}))]
        for _ in range(2):  # measured, and read back
            with Journal(tmp_path / "journal", {}) as journal:
                found = figures(model, changes, ImageError(), journal=journal)
            assert found == [{"mse": math.inf}]
