"""Samples of a call's batch: counted where they can be told apart, and cut out."""

from __future__ import annotations

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from mezzotint.models import Call, Sampling, batch_size, find_denoiser, record_calls, rows_of

PROMPTS = ("owl", "red fox", "cat")


def call_of(rows: int = 4, **kwargs: object) -> Call:
    """A call of `rows` samples of four channels, with further arguments."""
    x = torch.randn(rows, 4, 8, 8)
    return Call((x, torch.tensor(7.0)), kwargs, output=x.clone())


@pytest.fixture
def guided(pixart_pipe: DiffusionPipeline) -> Call:
    """A pipeline's call on three prompts under guidance: six rows."""
    return record_calls(pixart_pipe, Sampling(PROMPTS, guidance=3.0), limit=1)[0]


class TestBatchSize:
    def test_a_pipelines_batch_has_a_row_for_each_prompt_and_half(self, guided):
        assert batch_size(guided) == 6

    @pytest.mark.parametrize(
        "kwargs",
        [
            {"text": torch.zeros(4, 7, 3), "mask": torch.ones(4, 7)},
            {"added": {"ids": torch.zeros(4, 6), "more": [torch.zeros(4, 2), None]}},
            {"guidance": torch.ones(1), "scale": torch.tensor(2.0), "return_dict": False},
            {"img_ids": torch.zeros(64, 3), "txt_ids": torch.zeros(4, 3)},
        ],
        ids=["rows", "nested", "shared", "positions"],
    )
    def test_it_is_known_where_every_tensor_has_it(self, kwargs):
        assert batch_size(call_of(4, **kwargs)) == 4

    @pytest.mark.parametrize(
        "kwargs",
        [
            {"ids": torch.zeros(64, 3)},
            {"sizes": [(8, 8)] * 4},
            {"pooled": [torch.zeros(2, 3)]},
            {"latents": [torch.zeros(4, 8, 8)] * 4},
        ],
        ids=["another-length", "one-entry-per-sample", "within-a-list", "one-tensor-per-sample"],
    )
    def test_it_is_unclear_otherwise(self, kwargs):
        assert batch_size(call_of(4, **kwargs)) is None

    def test_it_is_unclear_where_no_argument_holds_samples(self):
        assert batch_size(Call((torch.ones(3),), {}, output=torch.ones(3, 2))) is None

    def test_it_is_unclear_before_the_call_was_run(self):
        assert batch_size(Call((torch.ones(3, 2),), {})) is None

    def test_one_sample_is_one_whatever_else_there_is(self):
        assert batch_size(call_of(1, ids=torch.zeros(64, 3))) == 1


class TestRows:
    def test_they_are_a_call_of_their_own(self, pixart_pipe, guided):
        _, denoiser = find_denoiser(pixart_pipe)
        cut = rows_of(guided, [4, 1])
        assert batch_size(cut) == 2
        assert torch.equal(cut.output, guided.output[[4, 1]])
        torch.testing.assert_close(cut.run(denoiser), cut.output)
        assert (cut.step, cut.timestep) == (guided.step, guided.timestep)

    def test_what_belongs_to_no_sample_stays(self):
        ids, scale = torch.zeros(4, 3), torch.ones(1)
        call = call_of(4, img_ids=ids, scale=scale, added=[torch.arange(8.0).view(4, 2)])
        cut = rows_of(call, [3])
        assert cut.kwargs["img_ids"] is ids
        assert cut.kwargs["scale"] is scale
        assert cut.kwargs["added"][0].tolist() == [[6.0, 7.0]]

    def test_they_keep_nothing_of_the_others_in_memory(self):
        def held(tensor: Tensor) -> int:
            return tensor.untyped_storage().nbytes()

        call = call_of(4)
        cut = rows_of(call, [2])
        assert held(cut.args[0]) == held(cut.output) == held(call.output) // 4
