"""A few of a pipeline's calls, of a few samples each, as they are kept while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from mezzotint.errors import UsageError
from mezzotint.models import (
    Call,
    CallSelection,
    Sampling,
    batch_size,
    find_denoiser,
    record_calls,
)

PROMPTS = ("owl", "red fox", "cat")


def same(left: Call, right: Call) -> bool:
    pairs = zip(tensors((left.args, left.kwargs)), tensors((right.args, right.kwargs)), strict=True)
    return torch.equal(left.output, right.output) and all(torch.equal(*pair) for pair in pairs)


def tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | tuple | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors(item)


@contextmanager
def counted(module: nn.Module) -> Iterator[list[int]]:
    """The batch sizes of a module's calls meanwhile."""
    sizes: list[int] = []
    hook = module.register_forward_hook(lambda _, args, output: sizes.append(len(args[0])))
    yield sizes
    hook.remove()


class TestCalls:
    def test_all_are_kept_as_they_are_where_all_fit(self, pipe):
        sampling = Sampling(PROMPTS, batch=2, steps=3, guidance=1.0)
        found = record_calls(pipe, sampling, CallSelection())
        everything = record_calls(pipe, sampling)
        assert len(found) == len(everything) == 6
        assert all(map(same, found, everything))
        assert [call.step for call in found] == [call.step for call in everything]

    def test_their_timesteps_are_spread_over_the_schedule(self, pipe):
        sampling = Sampling(PROMPTS, steps=20)
        found = record_calls(pipe, sampling, CallSelection(calls=4))
        assert [call.step for call in found] == [2, 7, 12, 17]
        everything = record_calls(pipe, sampling)
        assert [call.timestep for call in found] == [everything[c.step].timestep for c in found]

    def test_batches_of_prompts_give_other_timesteps_each(self, pipe):
        sampling = Sampling(PROMPTS[:2], batch=1, steps=20)
        found = record_calls(pipe, sampling, CallSelection(calls=4))
        assert [call.step for call in found] == [2, 12, 7, 17]

    def test_runs_that_give_none_are_left_out(self, pipe):
        sampling = Sampling(PROMPTS, batch=1, steps=2, guidance=1.0)
        with counted(find_denoiser(pipe)[1]) as sizes:
            found = record_calls(pipe, sampling, CallSelection(calls=1))
        assert len(sizes) == 2
        assert same(*found, record_calls(pipe, Sampling(PROMPTS[1:2], 1, 2, 1.0))[1])

    def test_they_are_the_same_again(self, pipe):
        sampling = Sampling(PROMPTS, steps=9)
        selection = CallSelection(calls=3, samples=2)
        once, again = (record_calls(pipe, sampling, selection) for _ in range(2))
        assert all(map(same, once, again))

    def test_a_scheduler_that_does_not_tell_its_steps_costs_another_run(self, pipe, monkeypatch):
        sampling = Sampling(PROMPTS, steps=10)
        expected = record_calls(pipe, sampling, CallSelection(calls=2))
        monkeypatch.setattr("mezzotint.models.selected_calls.scheduled_steps", lambda pipe: 3)
        with counted(find_denoiser(pipe)[1]) as sizes:
            found = record_calls(pipe, sampling, CallSelection(calls=2))
        assert all(map(same, found, expected))
        assert len(sizes) == 20

    def test_a_limit_does_not_go_with_a_selection(self, pipe):
        with pytest.raises(UsageError, match="limit: is for recording all calls"):
            record_calls(pipe, Sampling(PROMPTS), CallSelection(), limit=1)

    @pytest.mark.parametrize("numbers", [{"calls": 0}, {"samples": 0}], ids=["calls", "samples"])
    def test_none_at_all_is_refused(self, numbers):
        with pytest.raises(UsageError, match=r"(calls|samples): is 0; give 1"):
            CallSelection(**numbers)


class TestSamples:
    @pytest.fixture
    def guided(self, pixart_pipe: DiffusionPipeline) -> tuple[Call, ...]:
        """Calls of three of six samples: three prompts under guidance."""
        sampling = Sampling(PROMPTS, steps=4, guidance=3.0)
        return record_calls(pixart_pipe, sampling, CallSelection(calls=2, samples=3))

    def test_no_call_has_more_than_asked_for(self, guided):
        assert [batch_size(call) for call in guided] == [3, 3]

    def test_they_are_rows_of_the_pipelines_own_calls(self, guided, pixart_pipe):
        everything = record_calls(pixart_pipe, Sampling(PROMPTS, steps=4, guidance=3.0))
        for call, rows in zip(guided, ([0, 2, 4], [1, 3, 5]), strict=True):
            whole = everything[call.step]
            for mine, all_rows in zip(tensors(call.kwargs), tensors(whole.kwargs), strict=True):
                assert torch.equal(mine, all_rows[rows] if all_rows.ndim else all_rows)
            torch.testing.assert_close(call.output, whole.output[rows])

    def test_replaying_one_gives_its_output_bit_for_bit(self, guided, pixart_pipe):
        for call in guided:
            assert torch.equal(call.run(pixart_pipe.transformer), call.output)

    def test_calls_stay_whole_where_samples_depend_on_each_other(self, pixart_pipe):
        transformer = pixart_pipe.transformer
        mean = transformer.register_forward_hook(
            lambda _, args, output: (output[0] - output[0].mean(0),)
        )
        calls = record_calls(
            pixart_pipe, Sampling(PROMPTS, steps=2), CallSelection(calls=2, samples=2)
        )
        mean.remove()
        assert [batch_size(call) for call in calls] == [6, 6]

    def test_calls_stay_whole_where_samples_cannot_be_told_apart(self, pixart_pipe, monkeypatch):
        monkeypatch.setattr("mezzotint.models.selected_calls.batch_size", lambda call: None)
        calls = record_calls(
            pixart_pipe, Sampling(PROMPTS, steps=2), CallSelection(calls=2, samples=2)
        )
        assert [len(call.output) for call in calls] == [6, 6]
