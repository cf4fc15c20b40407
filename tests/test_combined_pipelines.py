"""Kandinsky 2.2: the prior and the decoder of one pipeline under one budget, in one folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from diffusers import DiffusionPipeline, KandinskyV22CombinedPipeline

import mezzotint as mz
from mezzotint.checkpoint import read_plan
from mezzotint.errors import ModelError, UsageError
from mezzotint.models import denoising_module
from tests.checkpoint.packed import same
from tests.models import combined
from tests.recipes.conftest import NEAREST

BOTH = ("prior_prior", "unet")
SAMPLING = mz.Sampling(("owl", "red fox"))

# The combined pipeline itself hands its decoder arguments that diffusers calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.callback:FutureWarning")


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> KandinskyV22CombinedPipeline:
    """Read only."""
    return mz.load(combined.save_kandinsky(tmp_path_factory.mktemp("hub") / "kandinsky"))


@pytest.fixture(scope="module")
def result(pipe: KandinskyV22CombinedPipeline) -> mz.Result:
    budget = mz.Budget(weight_bits=5.5, act_bits=16)
    return mz.quantize(pipe, NEAREST, budget, sampling=SAMPLING)


@pytest.fixture(scope="module")
def saved(result: mz.Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return result.save(tmp_path_factory.mktemp("hub") / "quantized")


def image(pipe: DiffusionPipeline) -> npt.NDArray[np.float32]:
    noise = torch.Generator().manual_seed(0)
    size = {"height": 16, "width": 16, "num_inference_steps": 2, "prior_num_inference_steps": 2}
    return pipe("owl", **size, generator=noise, output_type="np").images


def test_one_budget_holds_for_prior_and_decoder(result):
    assert result.plan.components == BOTH
    chosen = {
        name: {c.weight for n, c in result.plan.choices.items() if n.startswith(name)}
        for name in BOTH
    }
    assert all(chosen.values())


def test_the_pipelines_within_run_what_is_packed(pipe, result):
    packed = result.pipeline
    assert packed.prior_pipe.prior is packed.prior_prior is not pipe.prior_prior
    assert packed.decoder_pipe.unet is packed.unet is not pipe.unet
    assert pipe.prior_pipe.prior is pipe.prior_prior
    assert not np.array_equal(image(packed), image(pipe))


def test_diffusers_loads_the_same_bits(result, saved):
    loaded = DiffusionPipeline.from_pretrained(saved)
    for name in BOTH:
        assert same(getattr(loaded, name).state_dict(), getattr(result.pipeline, name).state_dict())
    assert np.array_equal(image(loaded), image(result.pipeline))


def test_so_do_we_and_the_plan_packs_the_same_again(pipe, result, saved):
    assert np.array_equal(image(mz.load(saved)), image(result.pipeline))
    assert read_plan(saved) == result.plan
    assert np.array_equal(image(mz.apply(pipe, read_plan(saved)).pipeline), image(result.pipeline))


def test_an_engine_computes_the_pipelines_within(result):
    served = mz.with_engine(result.pipeline, "openvino")
    assert served.decoder_pipe.unet is served.unet is not result.pipeline.unet
    assert np.allclose(image(served), image(result.pipeline), atol=0.05)


def test_the_decoder_of_its_autoencoder_can_be_measured(pipe):
    joint = denoising_module(pipe, ("movq",))
    calls = mz.record_calls(pipe, SAMPLING, denoiser=joint)
    assert [call.kwargs["component"] for call in calls] == ["movq"]
    assert torch.equal(calls[0].run(joint), calls[0].output)


def test_text_encoders_within_are_refused_with_what_can_be_named(pipe):
    message = "prior_text_encoder: run in a pipeline within .* such as unet and prior_prior"
    with pytest.raises(UsageError, match=message):
        mz.quantize(pipe, NEAREST, sampling=SAMPLING, components=("prior_text_encoder",))


def test_a_card_that_names_another_prior_is_refused(saved, tmp_path):

    folder = shutil.copytree(saved, tmp_path / "copy")
    (folder / "README.md").write_text("---\nprior:\n- owner/other\n---\n")
    with pytest.raises(ModelError, match=r"loads other pipelines, which its README\.md names"):
        mz.load(folder)
