"""Static input ranges that clip: by shares of values, or for the least rounding error."""

from __future__ import annotations

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

import mezzotint as mz
from mezzotint.calibration import calibrated, input_ranges
from mezzotint.errors import FormatError
from mezzotint.formats import ActivationFormat
from mezzotint.models import Call, load_pipeline, record_calls
from mezzotint.plan import Encoding
from mezzotint.runtime import InputRange
from tests.models import tiny

VALUES = 100_000


def seen_by(module: nn.Module, x: Tensor) -> tuple[Call, ...]:
    return (Call((x,), {}, output=torch.zeros(1)),)


def found(x: Tensor, clip: str, activation: str = "uint8/tensor") -> InputRange:
    """The range of a layer that is given `x`."""
    module = nn.Sequential(nn.Linear(x.shape[-1], 1))
    choices = {"0": mz.Choice("int8/channel", activation)}
    ranges = input_ranges(module, choices, seen_by(module, x), momentum=None, clips={"0": clip})
    return ranges["0"][0]


def error(x: Tensor, bounds: InputRange, activation: ActivationFormat) -> float:
    """Mean squared rounding error of `x` under a range."""
    parameters = activation.range_parameters(bounds.low, bounds.high, x.device)
    return float((activation.roundtrip(x, *parameters) - x).square().mean())


@pytest.fixture
def heavy() -> Tensor:
    """Normal values, a few of them a hundred times larger, above zero."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(VALUES, generator=generator)
    x[:20] = 100 * x[:20].abs()
    return x.view(-1, 100)


class TestShares:
    @pytest.mark.parametrize(("clip", "share"), [("p99.9", 0.999), ("p99.99", 0.9999)])
    def test_so_many_values_lie_within_and_hardly_more(self, clip, share):
        x = torch.randn(VALUES, generator=torch.Generator().manual_seed(1)).view(-1, 100)
        bounds = found(x, clip)
        within = ((x >= bounds.low) & (x <= bounds.high)).double().mean()
        assert share <= within < (1 + share) / 2
        assert bounds.low == pytest.approx(-bounds.high, rel=0.15)

    def test_values_of_which_most_are_one_keep_it(self):
        x = torch.zeros(100, 100)
        x[0, 0] = 1
        bounds = found(x, "p99.9")
        assert bounds.low == 0
        assert 0 < bounds.high < 0.001

    def test_a_constant_has_nothing_to_clip(self):
        assert found(torch.full((4, 4), 2.0), "mse") == InputRange(2.0, 2.0)


class TestLeastError:
    @pytest.mark.parametrize("activation", ["uint8/tensor", "int8/tensor", "uint4/tensor"])
    def test_it_errs_less_than_every_other_share_of_the_full_range(self, heavy, activation):
        form = mz.Choice("int8/channel", activation).activation_format
        chosen = error(heavy, found(heavy, "mse", activation), form)
        full = found(heavy, "full", activation)
        shrunk = [
            error(heavy, InputRange(full.low * low, full.high * high), form)
            for low in (0.25, 0.5, 0.75, 1.0)
            for high in torch.linspace(0.02, 1, 50).tolist()
        ]
        assert chosen < error(heavy, full, form)
        assert chosen <= 1.02 * min(shrunk)

    def test_fewer_codes_clip_more(self):
        x = torch.randn(VALUES, generator=torch.Generator().manual_seed(1)).view(-1, 100)
        wide, narrow = (found(x, "mse", f"uint{bits}/tensor") for bits in (6, 3))
        assert narrow.high < wide.high < found(x, "full").high
        assert narrow.low > wide.low > found(x, "full").low

    def test_values_on_one_side_of_zero_keep_it(self, heavy):
        bounds = found(heavy.abs(), "mse")
        assert 0 <= bounds.low < 0.05
        assert bounds.high < found(heavy.abs(), "full").high


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> DiffusionPipeline:
    return load_pipeline(tiny.save_few_step(tmp_path_factory.mktemp("clipped") / "tiny"))


@pytest.fixture(scope="module")
def calls(pipe: DiffusionPipeline) -> tuple[Call, ...]:
    return record_calls(pipe, mz.Sampling(("owl", "red heart")))


class TestPlans:
    def test_each_layer_is_clipped_as_its_encoding_says(self, pipe, calls):
        static = mz.Choice("int8/channel", "uint4/tensor")
        names = ("down_blocks.0.resnets.0.conv1", "conv_out", "time_embedding.linear_1")
        plan = mz.Plan(
            dict.fromkeys(names, static),
            encoding=Encoding(clip="p99.9"),
            encodings={"conv_out": Encoding(clip="mse"), names[2]: Encoding()},
        )
        ranges = calibrated(pipe.unet, plan, calls).input_ranges
        full = calibrated(pipe.unet, mz.Plan(plan.choices), calls).input_ranges
        assert ranges[names[2]] == full[names[2]]
        for name in names[:2]:
            (bounds,), (whole,) = ranges[name], full[name]
            assert whole.low <= bounds.low < bounds.high <= whole.high
            assert bounds != whole

    def test_a_saved_plan_makes_the_same_ranges_again(self, pipe, tmp_path):
        choices = {"conv_in": mz.Choice("int8/channel", "uint4/tensor")}
        plan = mz.Plan(choices, encoding=Encoding(clip="mse"))
        first = mz.apply(pipe, plan, sampling=mz.Sampling(("owl", "red heart")))
        first.plan.save(tmp_path / "plan.json")
        again = mz.apply(pipe, mz.Plan.load(tmp_path / "plan.json"))
        unclipped = mz.apply(pipe, mz.Plan(choices), sampling=first.plan.calibration.sampling)
        scales = [
            result.denoiser.conv_in.get_buffer("input_scale")
            for result in (first, again, unclipped)
        ]
        assert torch.equal(scales[0], scales[1])
        assert not torch.equal(scales[0], scales[2])

    def test_a_clip_that_does_not_exist_is_refused(self):
        with pytest.raises(FormatError, match=r"clip: there is no 'p95'; use full, p99\.9"):
            Encoding(clip="p95")
