"""All formats, from labels to a checkpoint: lookup tables, integers and mixtures of widths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

import mezzotint as mz
from mezzotint.checkpoint import read_plan
from mezzotint.formats import MixedFormat
from mezzotint.measuring import PlanChange
from mezzotint.recipes.job import Job
from mezzotint.recipes.label_options import SampleOptions
from mezzotint.recipes.labelling import sample_labels
from mezzotint.recipes.study import Study
from mezzotint.runtime import module_bytes, packed_layers
from tests.models import tiny

SAMPLING = mz.Sampling(prompts=("owl", "red apple"))
LABELS = SampleOptions(
    count=24, formats=("kmeans3/tensor", "uint4/channel"), metric="noise", images=2
)
UNEVEN = ("down_blocks.0.resnets.0.conv2", "up_blocks.0.resnets.1.conv2")


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> DiffusionPipeline:
    """Half of the outputs of two layers are dead: the others deserve their bits."""
    folder = tmp_path_factory.mktemp("all") / "tiny"
    pipe = tiny.tiny_stable_diffusion()
    pipe.register_modules(unet=tiny.smallest_unet(channels=32))
    with torch.no_grad():
        for name in UNEVEN:
            pipe.unet.get_submodule(name).weight[:15] = 0.0
    pipe.save_pretrained(folder)
    tiny.write_generation(folder, num_inference_steps=1, guidance_scale=1.0)
    (folder / "prompts.txt").write_text("owl\nred apple\n")
    return mz.load(folder)


@pytest.fixture(scope="module")
def studied() -> list[Job]:
    """Jobs whose denoisers were studied while `result` was made."""
    return []


@pytest.fixture(scope="module")
def result(
    pipe: DiffusionPipeline, studied: list[Job], tmp_path_factory: pytest.TempPathFactory
) -> mz.Result:
    labels = tmp_path_factory.mktemp("labels") / "all"
    sample_labels(pipe, labels, LABELS)
    options = {"predictor": "ridge-choices", "formats": "all", "simulated_attention": "k8"}
    recipe = mz.Qua2SeDiMo(labels=str(labels), **options)
    study = Study.of

    def counted(job: Job, **options: Any) -> Study:
        studied.append(job)
        return study(job, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Study, "of", counted)
        budget = mz.Budget(weight_bits=4.2, act_bits=16)
        return mz.quantize(pipe, recipe, budget, sampling=SAMPLING)


def test_the_denoiser_is_studied_once(result: mz.Result, studied: list[Job]):
    assert len(studied) == 1


def test_the_plan_has_formats_of_all_kinds(result: mz.Result):
    formats = {choice.weight for choice in result.plan.quantized.values()}
    assert {"lut", "int", "mix"} <= {name[:3] for name in formats}
    for name in UNEVEN:
        mixture = result.plan[name].weight_format
        assert isinstance(mixture, MixedFormat)
        assert len(set(mixture.widths)) == 3
    assert result.plan.encoding.rounding == "feedback"


def test_the_plan_says_what_labels_told(result: mz.Result):
    context = result.plan.context
    assert context["recipe"] == "qua2sedimo"
    assert context["options"]["formats"] == "all"
    assert (context["predictor"], context["labels"]) == ("ridge-choices", 24)
    assert result.plan.simulated_attention == mz.SimulatedAttention(k=8)
    assert 0 < context["simulated_attention"]["noise_alone"] < 1e-3


def test_what_simulated_attention_adds_is_recorded_beside_all_else(result: mz.Result):
    assert result.record is not None
    alone = PlanChange(mz.Plan({}, simulated_attention=mz.SimulatedAttention(k=8))).name
    units = [unit for unit in result.record.entries if alone in unit]
    assert len(units) == 1
    assert len(result.record.entries) > 10


def test_all_is_packed_saved_and_loaded_bit_for_bit(result: mz.Result, tmp_path: Path):
    folder = result.save(tmp_path / "all")
    loaded = mz.load(folder)
    assert read_plan(folder) == result.plan
    assert {*packed_layers(loaded.unet)} == {*result.plan.quantized}
    assert module_bytes(loaded.unet) == module_bytes(result.denoiser)
    kept, found = result.denoiser.state_dict(), loaded.unet.state_dict()
    assert kept.keys() == found.keys()
    assert [name for name, tensor in kept.items() if not torch.equal(tensor, found[name])] == []
    images = [mz.generate(each, SAMPLING) for each in (result.pipeline, loaded)]
    assert np.array_equal(*images)


def test_bits_asked_for_are_not_exceeded(result: mz.Result, pipe: DiffusionPipeline):
    packed = packed_layers(result.denoiser).items()
    stored = 8 * sum(tensor.nbytes for _, layer in packed for tensor in layer.buffers())
    weights = sum(pipe.unet.get_submodule(name).weight.numel() for name, _ in packed)
    assert stored / weights <= 4.2
