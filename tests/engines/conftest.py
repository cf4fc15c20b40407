"""Packed denoisers of several kinds, their calls, and what torch makes of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

import mezzotint as mz
from mezzotint.formats import as_bits
from mezzotint.models import Call, find_denoiser, record_calls
from mezzotint.runtime import Calibration, InputRange, part_inputs, shape_of
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
    pipe = mz.apply(original.pipe, plan, calibrated(original, plan)).pipeline
    with torch.no_grad():
        return Case(pipe, original.call, original.call.run(find_denoiser(pipe)[1]))


def calibrated(case: Case, plan: mz.Plan) -> Calibration:
    """Ranges and constant outputs from the case's own call."""
    ranges: dict[str, tuple[InputRange, ...]] = {}
    constants: dict[str, dict[str, Tensor]] = {}

    def look(name: str, choice: mz.Choice):
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            parts = part_inputs(inputs[0], choice.structures, shape_of(layer), {})
            ranges[name] = tuple(InputRange(float(p.min()), float(p.max())) for p in parts)
            for each in choice.structures:
                if isinstance(each, mz.ConstantTokens):
                    constants[name] = {"constant": as_bits(output[0, : each.count].clone())}

        return hook

    handles = [
        case.denoiser.get_submodule(name).register_forward_hook(look(name, choice))
        for name, choice in plan.choices.items()
    ]
    with torch.no_grad():
        case.call.run(case.denoiser)
    for handle in handles:
        handle.remove()
    return Calibration(input_ranges=ranges, tensors=constants)


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
