"""All formats, from labels to a checkpoint: lookup tables, integers and mixtures of widths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

import mezzotint as mz
from mezzotint.checkpoint import read_plan
from mezzotint.formats import MixedFormat
from mezzotint.recipes.label_options import SampleOptions
from mezzotint.recipes.labelling import sample_labels
from mezzotint.runtime import module_bytes, packed_layers

SAMPLING = mz.Sampling(prompts=("owl", "red apple"))
LABELS = SampleOptions(
    count=24, formats=("kmeans3/tensor", "uint4/channel"), metric="noise", images=2
)
UNEVEN = "time_embedding.linear_2"


@pytest.fixture(scope="module")
def pipe(smallest_folder: Path) -> DiffusionPipeline:
    """One layer has a few outputs with a weight far out, and some that are dead."""
    pipe = mz.load(smallest_folder)
    with torch.no_grad():
        weight = pipe.unet.get_submodule(UNEVEN).weight
        weight[[3, 17, 20], 5] = 4.0
        weight[8:14] = 0.0
    return pipe


@pytest.fixture(scope="module")
def result(pipe: DiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> mz.Result:
    labels = tmp_path_factory.mktemp("labels") / "all"
    sample_labels(pipe, labels, LABELS)
    options = {"predictor": "ridge-choices", "formats": "all", "simulated_attention": "k8"}
    recipe = mz.Qua2SeDiMo(labels=str(labels), **options)
    return mz.quantize(pipe, recipe, mz.Budget(weight_bits=4.2, act_bits=16), sampling=SAMPLING)


def test_the_plan_has_formats_of_all_kinds(result: mz.Result):
    formats = {name: choice.weight for name, choice in result.plan.quantized.items()}
    print(formats)
    assert isinstance(result.plan[UNEVEN].weight_format, MixedFormat)
    assert {"lut", "int"} <= {name[:3] for name in formats.values()}
    assert result.plan.encoding.rounding == "feedback"


def test_the_plan_says_what_labels_told(result: mz.Result):
    context = result.plan.context
    assert context["recipe"] == "qua2sedimo"
    assert context["options"]["formats"] == "all"
    assert (context["predictor"], context["labels"]) == ("ridge-choices", 24)
    assert result.plan.simulated_attention == mz.SimulatedAttention(k=8)
    assert 0 < context["simulated_attention"]["noise_alone"] < 1e-3


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
