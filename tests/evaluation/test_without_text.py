"""Figures of pipelines that make videos, or take no text, and why others are left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from diffusers import DDIMScheduler, DiTPipeline
from rich.console import Console

import mezzotint as mz
from mezzotint.errors import UsageError
from mezzotint.evaluation import Baseline, evaluate, psnr
from tests.models import tiny


@pytest.fixture(scope="module")
def pipe() -> DiTPipeline:
    """Images of classes."""
    return DiTPipeline(
        transformer=tiny.tiny_dit().eval(),
        vae=tiny.tiny_vae().eval(),
        scheduler=DDIMScheduler(),
        id2label=None,
    )


@pytest.fixture(scope="module")
def baseline(pipe) -> Baseline:
    labels = {"class_labels": [1, 2, 3, 4]}
    return Baseline.of(pipe, mz.Sampling(count=4, steps=2, guidance=1.0, call_kwargs=labels))


@pytest.fixture(scope="module")
def videos(baseline) -> Baseline:
    """The same images, taken for two videos of two frames."""
    return replace(baseline, sampling=baseline.sampling.part(0, 2))


def written(evaluation: object) -> str:
    console = Console(width=200, record=True, file=None)
    with console.capture() as captured:
        console.print(evaluation.table())
    return captured.get()


def test_without_text_captions_are_left_out_with_the_reason(pipe, baseline):
    found = evaluate(baseline, pipe)
    assert found.ssim.value == 1
    assert found.r_precision is None
    assert found.left_out == {"R-precision": "the images have no prompts"}
    assert found.to_dict()["left_out"] == dict(found.left_out)
    assert "left out: the images have no prompts" in written(found)


def test_the_context_names_the_further_arguments(pipe, baseline):
    context = evaluate(baseline, pipe).context
    assert context["call_kwargs"] == {"class_labels": [1, 2, 3, 4]}
    assert context["images"] == 4


def test_videos_are_compared_frame_by_frame(pipe, videos):
    changed = videos.images // 2
    found = evaluate(videos, pipe, images=changed.reshape(2, 2, *changed.shape[1:]))
    frames = psnr(videos.images, changed)
    assert found.psnr_db.value == pytest.approx(frames.mean())
    assert (found.context["images"], found.context["frames"]) == (2, 2)
    assert {"PSNR of frames (dB)", "SSIM of frames"} <= found.figures().keys()
    assert "2 videos against the reference" in written(found)


def test_each_video_counts_once_in_an_interval(videos):
    figures = np.array([1.0, 3.0, 5.0, 9.0])
    assert videos.of_each(figures).tolist() == [2.0, 7.0]
    with pytest.raises(UsageError, match="images: are 3 for 2 prompts"):
        videos.of_each(figures[:3])


def test_videos_have_no_r_precision(pipe, videos):
    prompted = replace(videos, sampling=mz.Sampling(("owl", "fox")))
    images = videos.images
    assert "not with videos" in evaluate(prompted, pipe, images=images).left_out["R-precision"]
