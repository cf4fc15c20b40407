"""Text embeddings that a joint module makes as the pipeline itself does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

import mezzotint as mz
from mezzotint.models import denoising_module
from mezzotint.plan import CallSelection
from tests.models.tiny import write_generation
from tests.pipelines.registry import PIPELINES

TITLES = {
    "Stable Diffusion 3.5": "several encoders joined",
    "Z-Image": "a list with a text for each sample",
    "Qwen-Image": "texts padded to the longest of a batch",
    "Wan 2.2": "guidance in calls of its own, two denoisers",
}


@pytest.mark.parametrize("title", TITLES, ids=TITLES.values())
def test_predictions_are_those_that_were_recorded(title: str, tmp_path: Path):
    tiny = next(each for each in PIPELINES if each.title == title)
    tiny.build().save_pretrained(tmp_path / "tiny")
    write_generation(tmp_path / "tiny", **tiny.generation)
    pipe = mz.load(tmp_path / "tiny")
    encoders = [n for n, part in pipe.components.items() if isinstance(part, PreTrainedModel)]
    joint = denoising_module(pipe, encoders).eval()
    sampling, selection = mz.Sampling(tiny.prompts), CallSelection(2, 4)
    recorded = mz.record_calls(pipe, sampling, selection)
    calls = mz.record_calls(pipe, sampling, selection, denoiser=joint)
    assert all(call.kwargs["text"].shape == (len(call.output), 2) for call in calls)
    for call in calls:
        with torch.no_grad():
            assert torch.equal(call.run(joint), call.output)
    if len(calls) == len(recorded) and len(calls[0].output) == len(recorded[0].output):
        for call, before in zip(calls, recorded, strict=True):
            assert torch.allclose(call.output, before.output, rtol=1e-3, atol=1e-4)
