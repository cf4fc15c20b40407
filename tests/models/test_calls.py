import math

import pytest
import torch
from diffusers import DiffusionPipeline
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mezzotint.errors import ModelError, UsageError
from mezzotint.models import Call, Sampling, find_denoiser, output_tensor, record_calls

PROMPTS = ("owl", "red fox", "cat")


def all_tensors(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if not isinstance(value, dict | tuple):
        return []
    items = value.values() if isinstance(value, dict) else value
    return [tensor for item in items for tensor in all_tensors(item)]


def test_one_call_for_each_batch_and_step(pipe: DiffusionPipeline):
    calls = record_calls(pipe, Sampling(PROMPTS, batch=2, steps=3))
    assert [call.step for call in calls] == [0, 1, 2, 0, 1, 2]
    assert calls[0].timestep > calls[1].timestep > calls[2].timestep
    assert [call.timestep for call in calls[:3]] == [call.timestep for call in calls[3:]]


def test_guidance_doubles_the_batch_of_a_call(pixart_pipe: DiffusionPipeline):
    (call,) = record_calls(pixart_pipe, Sampling(PROMPTS, guidance=3.0), limit=1)
    assert call.output.shape == (2 * len(PROMPTS), 4, 8, 8)


def test_replaying_a_call_gives_its_output(pipe: DiffusionPipeline):
    _, denoiser = find_denoiser(pipe)
    for call in record_calls(pipe, Sampling(PROMPTS)):
        assert torch.equal(call.run(denoiser), call.output)


def test_recorded_tensors_are_detached_copies_on_the_cpu(pipe: DiffusionPipeline):
    first, second = record_calls(pipe, Sampling(PROMPTS[:1]))
    tensors = [*all_tensors(first.args), *all_tensors(first.kwargs), first.output]
    assert len(tensors) >= 3
    assert all(t.device.type == "cpu" and not t.requires_grad for t in tensors)
    later = {t.data_ptr() for t in all_tensors((second.args, second.kwargs))}
    assert later.isdisjoint(t.data_ptr() for t in tensors)


@pytest.mark.parametrize("limit", [1, 3])
def test_the_limit_ends_the_run(pipe: DiffusionPipeline, limit: int):
    sampling = Sampling(PROMPTS, batch=1)
    calls = record_calls(pipe, sampling, limit=limit)
    assert len(calls) == limit
    full = record_calls(pipe, sampling)
    assert all(torch.equal(a.output, b.output) for a, b in zip(calls, full, strict=False))


def test_recording_leaves_no_hook_behind(pipe: DiffusionPipeline):
    record_calls(pipe, Sampling(PROMPTS), limit=1)
    _, denoiser = find_denoiser(pipe)
    assert not denoiser._forward_hooks


def test_a_limit_below_one_is_refused(pipe: DiffusionPipeline):
    with pytest.raises(UsageError, match="limit: 0"):
        record_calls(pipe, Sampling(PROMPTS), limit=0)


def test_moving_keeps_structure_and_non_tensors():
    call = Call((torch.ones(2, 3),), {"added": {"size": None, "ids": [torch.ones(1, 6)]}, "n": 3})
    moved = call.to("meta")
    assert moved.args[0].is_meta
    assert moved.kwargs["added"]["ids"][0].is_meta
    assert moved.kwargs["added"]["size"] is None
    assert moved.kwargs["n"] == 3
    assert moved.output is None


@given(st.integers(0, 999))
def test_a_dtype_spares_timesteps_and_masks(timestep: int):
    call = Call(
        (torch.zeros(1, 4, 8, 8), torch.tensor(float(timestep))),
        {"mask": torch.ones(1, 16, dtype=torch.long)},
        output=torch.zeros(1, 4, 8, 8),
    ).to(dtype=torch.bfloat16)
    assert call.args[0].dtype == call.output.dtype == torch.bfloat16
    assert call.args[1] == timestep
    assert call.kwargs["mask"].dtype == torch.long


def test_the_step_and_timestep_of_a_made_up_call_are_neutral():
    call = Call((), {})
    assert call.step == 0
    assert math.isnan(call.timestep)


def test_the_output_is_found_in_tensors_tuples_and_model_outputs(unet_pipe: DiffusionPipeline):
    x = torch.ones(1)
    assert output_tensor(x) is x
    assert output_tensor((x,)) is x
    (call,) = record_calls(unet_pipe, Sampling(PROMPTS), limit=1)
    as_output = Call(call.args, {**call.kwargs, "return_dict": True})
    assert torch.equal(as_output.run(unet_pipe.unet), call.output)


def test_an_output_that_is_no_tensor_is_an_error():
    class Lists(nn.Module):
        def forward(self) -> tuple[list[int]]:
            return ([1],)

    with pytest.raises(ModelError, match="returns list where a tensor is expected"):
        Call((), {}).run(Lists())


class Listing(nn.Module):
    """Takes a list with a tensor for each sample, and returns another."""

    def forward(self, x: list[torch.Tensor]) -> tuple[list[torch.Tensor]]:
        return ([2 * sample for sample in x],)


def test_a_list_with_a_tensor_for_each_sample_is_stacked():
    x = torch.randn(3, 4, 8, 8)
    output = Call(([*x],), {}).run(Listing())
    assert torch.equal(output, 2 * x)


def test_samples_of_several_shapes_are_an_error_that_names_the_remedy():
    with pytest.raises(ModelError, match=r"shapes \(2,\), \(3,\) in one call; give it images"):
        Call(([torch.ones(2), torch.ones(3)],), {}).run(Listing())


def test_an_error_of_the_pipeline_itself_names_the_pipeline(unet_pipe: DiffusionPipeline):
    unet_pipe.unet.conv_in = nn.Conv2d(3, 8, 3, padding=1)
    with pytest.raises(ModelError, match="StableDiffusionPipeline fails on its own call"):
        record_calls(unet_pipe, Sampling(PROMPTS))
