"""Columns of the matrix: what a pipeline has to do, and to do right."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import accelerate
import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.loaders.peft import PeftAdapterMixin
from peft import LoraConfig, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict
from torch import nn

import mezzotint as mz
from mezzotint.engines import engine_executions
from mezzotint.models import denoising_module, find_denoiser, find_denoisers
from mezzotint.plan import Choice
from mezzotint.profiling import Profile, Timer, Work, plan_latency, predict, profile_pipeline
from mezzotint.runtime import module_bytes, packed_layers
from tests.pipelines.case import Case, apart
from tests.profiling.ticking import ticking

FORMATS = ("int2/channel", "int4/channel", "int8/channel")
INPUTS = ("int8/token", "float")
AUTO = mz.Auto(formats=FORMATS, probes=4, regret=math.inf, calls=2)
MIXDQ = mz.MixDQ(calls=2, content_weight_bits=(4, 8), activation_bits=(8,), split="none")
BUDGET = mz.Budget(weight_bits=8, act_bits=8)


def assert_quantized(case: Case, pipe: DiffusionPipeline, result: mz.Result) -> None:
    """Its layers are packed, and smaller, and it still draws what the original does."""
    packed, floating = packed_layers(result.denoiser), denoising_module(pipe)
    assert set(packed) == set(result.plan.quantized)
    before = sum(module_bytes(floating.get_submodule(name)) for name in packed)
    assert 0 < sum(map(module_bytes, packed.values())) < 0.5 * before
    case.assert_close(case.tiny.drawn(result.pipeline))


def auto(case: Case) -> None:
    pipe = case.floating()
    assert_quantized(case, pipe, mz.quantize(pipe, AUTO, BUDGET, sampling=case.sampling))


def mixdq(case: Case) -> None:
    pipe = case.floating()
    assert_quantized(case, pipe, mz.quantize(pipe, MIXDQ, BUDGET, sampling=case.sampling))


def reload(case: Case) -> None:
    drawn = case.process.drawn(case.tiny.title, case.packed_folder)
    assert np.array_equal(drawn, case.expected)
    case.assert_close(drawn)


def lora(case: Case) -> None:
    """As a file where the pipeline loads files, or else on the denoiser."""
    floating, pipe = case.floating(), case.packed()
    if hasattr(pipe, "load_lora_weights"):
        name, denoiser = next(iter(find_denoisers(floating).items()))
        layers = adapted(denoiser)
        type(floating).save_lora_weights(case.folder / "lora", **{f"{name}_lora_layers": layers})
        pipe.load_lora_weights(case.folder / "lora")
    else:
        adapted(find_denoiser(pipe)[1])
    assert apart(case.tiny.drawn(pipe), case.expected) > 0
    if hasattr(pipe, "unload_lora_weights"):
        pipe.unload_lora_weights()
        assert np.array_equal(case.tiny.drawn(pipe), case.expected)


def adapted(denoiser: nn.Module) -> dict[str, torch.Tensor]:
    """Add an adapter that changes the output, and return its tensors."""
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=r".*\.to_(q|k|v)", init_lora_weights=False)
    if isinstance(denoiser, PeftAdapterMixin):
        denoiser.add_adapter(config)
    else:
        inject_adapter_in_model(config, denoiser)
    return get_peft_model_state_dict(denoiser)


def offload(case: Case) -> None:
    """Whole models that come and go, then single layers of the denoiser."""
    pipe = case.packed()
    pipe.enable_model_cpu_offload(device="cpu")
    assert np.array_equal(case.tiny.drawn(pipe), case.expected)
    pipe.remove_all_hooks()
    for denoiser in find_denoisers(pipe).values():
        accelerate.cpu_offload(
            denoiser,
            torch.device("cpu"),
            offload_buffers=True,
            preload_module_classes=list(case.tiny.loaded_whole),
        )
        assert all(tensor.is_meta for tensor in denoiser.state_dict().values())
    assert np.array_equal(case.tiny.drawn(pipe), case.expected)


def compiled(case: Case) -> None:
    pipe = case.packed()
    torch.compiler.reset()
    graphs = torch._dynamo.utils.counters["stats"]  # of the whole process: no reset clears them
    before = graphs["unique_graphs"]
    for denoiser in find_denoisers(pipe).values():
        denoiser.compile(backend="eager")
    np.testing.assert_allclose(case.tiny.drawn(pipe), case.expected, atol=1e-3)
    assert graphs["unique_graphs"] > before
    torch.compiler.reset()


def torch_dtype(case: Case) -> None:
    half = case.tiny.half
    pipe = DiffusionPipeline.from_pretrained(case.packed_folder, torch_dtype=half)
    assert {denoiser.dtype for denoiser in find_denoisers(pipe).values()} == {half}
    case.assert_close(case.tiny.drawn(pipe))


def openvino(case: Case) -> None:
    pipe = mz.with_engine(case.packed(), "openvino")
    case.assert_close(case.tiny.drawn(pipe))
    for denoiser in find_denoisers(pipe).values():
        assert len(engine_executions(denoiser)) == len(packed_layers(denoiser))


def latency(case: Case) -> None:
    """By a clock that tells what layers cost, not how long they take."""
    pipe = case.floating()
    budget = mz.Budget(weight_bits=9, latency="0.6x")
    if len(find_denoisers(pipe)) > 1:  # which no profile is of
        mz.quantize(pipe, AUTO, budget, sampling=case.sampling)
    profile, file = profiled(case, pipe), case.folder / "profile.json"
    profile.save(file)
    options = dataclasses.replace(AUTO, inputs=INPUTS, profile=str(file))
    result = mz.quantize(pipe, options, budget, sampling=case.sampling)
    told = plan_latency(result.plan)
    assert told is not None
    assert told.predicted_ms == predict(profile, result.plan)
    assert told.predicted_ms <= 0.6 * profile.milliseconds + 1e-6
    assert_quantized(case, pipe, result)


def profiled(case: Case, pipe: DiffusionPipeline) -> Profile:
    with ticking() as clock:
        return profile_pipeline(
            pipe,
            Work(sampling=case.sampling),
            choices=[Choice(weight, x) for weight in FORMATS for x in INPUTS],
            cache=case.folder / "cache",
            timer=Timer(repeats=1, most=1, clock=clock),
        )


CELLS: Mapping[str, Callable[[Case], None]] = {
    "auto": auto,
    "mixdq": mixdq,
    "reload": reload,
    "lora": lora,
    "offload": offload,
    "compile": compiled,
    "torch_dtype": torch_dtype,
    "openvino": openvino,
    "latency": latency,
}
