"""Samples of recorded calls."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mezzotint.errors import CalibrationError
from mezzotint.measuring.samples import Samples, sample_count
from mezzotint.models import Call
from tests.measuring.conftest import recorded_calls
from tests.measuring.probing import call_of
from tests.models.tiny import tiny_pixart, tiny_unet


class Conditioned(nn.Module):
    """Takes a batch within nested arguments, a shared table, and scalars."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 4)
        self.runs = 0

    def forward(self, x: Tensor, extra: dict, table: Tensor, gain: float) -> tuple[Tensor]:
        self.runs += 1
        text, (scale,) = extra["text"], extra["scales"]
        return (self.layer(x + text) * scale[:, None] * gain + table[0],)


@pytest.fixture
def conditioned() -> Conditioned:
    return Conditioned()


@pytest.fixture
def call(conditioned: Conditioned) -> Call:
    extra = {"text": torch.randn(6, 4), "scales": [torch.rand(6)]}
    return call_of(conditioned, torch.randn(6, 4), extra=extra, table=torch.rand(3, 4), gain=2.0)


def test_every_row_gives_what_was_recorded_of_it(conditioned: Conditioned, call: Call):
    rows = Samples(conditioned)
    for row in range(sample_count(call)):
        sample = rows.sample(call, row)
        assert torch.allclose(sample.run(conditioned), call.output[row : row + 1])


def test_that_is_tried_once_for_calls_of_one_shape(conditioned: Conditioned, call: Call):
    rows, before = Samples(conditioned), conditioned.runs
    for row in range(6):
        rows.sample(call, row)
        rows.sample(call.copied(), row)
    assert conditioned.runs == before + 1
    half = Call(call.args, {**call.kwargs, "table": torch.rand(2, 4)}, call.output)
    rows.sample(half, 0)
    assert conditioned.runs == before + 2


def test_a_whole_call_is_taken_where_it_is_asked_for(conditioned: Conditioned, call: Call):
    assert Samples(conditioned).sample(call, None) is call


class Mixing(nn.Module):
    """Rows depend on each other."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Fixed(nn.Module):
    """No other batch than four fits."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.rand(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x.view(4, 3) + self.table


@pytest.mark.parametrize("kind", [Mixing, Fixed])
def test_rows_that_cannot_be_computed_alone_are_no_samples(kind: type[nn.Module]):
    model = kind()
    call = call_of(model, torch.randn(4, 3))
    assert Samples(model).sample(call, 2) is call


def test_a_coincidence_of_sizes_does_no_harm():
    class Sized(nn.Module):
        def forward(self, x: Tensor, table: Tensor) -> Tensor:
            return x @ table

    model = Sized()
    call = call_of(model, torch.randn(4, 4), torch.randn(4, 4))
    assert Samples(model).sample(call, 1) is call


@pytest.mark.parametrize("make", [tiny_unet, tiny_pixart])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_guidance_halves_of_denoisers_are_rows(make, dtype: torch.dtype):
    denoiser = make().eval().to(dtype)
    latents, text = torch.randn(2, 4, 8, 8), torch.randn(4, 5, 32).to(dtype)
    both = torch.cat([latents, latents]).to(dtype)
    time = torch.tensor([500] * 4)
    call = call_of(denoiser, both, timestep=time, encoder_hidden_states=text)
    rows = Samples(denoiser)
    alone = rows.sample(call, 3)
    assert len(alone.output) == 1
    assert torch.equal(alone.kwargs["encoder_hidden_states"], text[3:])


def test_a_call_that_was_never_run_is_refused():
    (call,) = recorded_calls(tiny_unet().eval(), (999,))
    with pytest.raises(CalibrationError, match="no recorded output"):
        sample_count(Call(call.args, call.kwargs))
