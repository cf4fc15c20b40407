"""Packed denoisers of several kinds, their calls, and what torch makes of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

import mezzotint as mz
from mezzotint.calibration import calibrated
from mezzotint.models import Call, find_denoiser, record_calls
from tests.models import tiny

PROMPTS = mz.Sampling(("owl", "red apple"))


@dataclass(frozen=True)
class Case:
    """A packed pipeline, one call of its denoiser, and the output of torch's kernels."""

    pipe: DiffusionPipeline
    call: Call
    expected: Tensor

    @property
    def denoiser(self) -> nn.Module:
        return find_denoiser(self.pipe)[1]


def float_case(pipe: DiffusionPipeline) -> Case:
    (call,) = record_calls(pipe, PROMPTS, limit=1)
    assert call.output is not None
    return Case(pipe, call, call.output)


def packed_case(original: Case, *choices: mz.Choice, **named: mz.Choice) -> Case:
    """The choices in turn, but for layers named (`conv_in`; `__` stands for a dot)."""
    denoiser = original.denoiser
    names = mz.uniform_plan(denoiser, weight_bits=8)
    picked = dict(zip(names, itertools.cycle(choices), strict=False))
    picked |= {name.replace("__", "."): choice for name, choice in named.items()}
    plan = mz.Plan(picked)
    pipe = mz.apply(original.pipe, plan, calibrated(denoiser, plan, [original.call])).pipeline
    with torch.no_grad():
        return Case(pipe, original.call, original.call.run(find_denoiser(pipe)[1]))


@pytest.fixture(scope="session")
def unet() -> Case:
    """A tiny U-Net in floating point; read only."""
    return float_case(tiny.tiny_stable_diffusion())


@pytest.fixture(scope="session")
def packed(unet: Case) -> Case:
    """The U-Net at four-bit weights, static inputs; read only."""
    return packed_case(unet, mz.Choice("int4/channel", "uint8/tensor"))


@pytest.fixture(scope="session")
def fast(packed: Case) -> DiffusionPipeline:
    """The same on openvino; compiled once, for its first call."""
    return mz.with_engine(packed.pipe, "openvino")
