"""Error feedback on layers of the embedded models, judged on other prompts than it was made on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mezzotint as mz
from mezzotint.calibration import input_moments
from mezzotint.models import Call, find_denoiser, read_prompts, record_calls
from mezzotint.plan import Choice
from mezzotint.rounding import feedback, nearest

W3 = Choice("int3/channel")
LAYERS = {
    "emoji-dit": (
        "transformer_blocks.0.attn1.to_v",
        "transformer_blocks.5.attn1.to_q",
        "transformer_blocks.4.attn2.to_out.0",
    ),
    "emoji-turbo": (
        "up_blocks.1.attentions.0.proj_out",
        "down_blocks.0.resnets.0.conv1",
        "mid_block.attentions.0.transformer_blocks.0.ff.net.2",
    ),
}
ZOO = Path(mz.__file__).parent / "zoo"


@pytest.fixture(scope="module", params=LAYERS)
def recorded(request: pytest.FixtureRequest) -> tuple[nn.Module, tuple[str, ...], list]:
    """A denoiser, layers of it, and calls on two sets of prompts."""
    pipe = mz.load(request.param)
    prompts = read_prompts(ZOO / request.param / "prompts.txt")
    calls = [
        record_calls(pipe, mz.Sampling(prompts[:16])),
        record_calls(pipe, mz.Sampling(prompts[-4:], seed=100)),
    ]
    return find_denoiser(pipe)[1], LAYERS[request.param], calls


def errors(weight: Tensor, rounded: Tensor, gram: Tensor) -> tuple[float, float]:
    """Squared error of the output, and of the weight."""
    error = weight.flatten(1) - rounded
    return float(((error @ gram) * error).sum()), float(error.square().sum())


def test_outputs_are_nearer_on_other_prompts_and_weights_are_farther(
    recorded: tuple[nn.Module, tuple[str, ...], list[tuple[Call, ...]]],
):
    denoiser, layers, (seen, others) = recorded
    choices = dict.fromkeys(layers, W3)
    known, unknown = (
        input_moments(denoiser, choices, calls, grams=True) for calls in (seen, others)
    )
    fmt = W3.weight_format
    assert fmt is not None
    for name in layers:
        weight = denoiser.get_submodule(name).get_parameter("weight").detach()
        grid = fmt.grid(weight, mz.Encoding().search)
        gram = unknown[name][0].blocks[0][0]
        plain = grid.values(torch.cat(list(nearest(weight, grid))))
        found = grid.values(feedback(weight, grid, known[name][0]))
        output, of_weight = errors(weight, found, gram)
        output_before, of_weight_before = errors(weight, plain, gram)
        assert output < 0.6 * output_before, name
        assert of_weight > of_weight_before, name
