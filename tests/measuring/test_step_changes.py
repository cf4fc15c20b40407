"""Changes of layers with a scale for each timestep."""

import pytest
import torch
from torch import Tensor, nn

from mezzotint.calibration import step_scales
from mezzotint.errors import FormatError
from mezzotint.measuring import Change, InputChange, LayerChange, PlanChange
from mezzotint.models import Call
from mezzotint.plan import Choice, Plan
from mezzotint.runtime import Calibration, ConstantTokens, SplitInput, StepScales, pack_layer
from tests.measuring.figures import noise
from tests.runtime.stepped import TIMESTEPS, Denoiser, batch, choice, step_tables

CALIBRATION = Calibration(tensors=dict.fromkeys(("conv", "linear"), step_tables()))
CHANGES = (
    LayerChange("linear", choice()),
    InputChange("linear", choice()),
    LayerChange("conv", choice()),
    InputChange("conv", choice()),
    PlanChange(Plan({"linear": choice(), "conv": choice()})),
)
EVERY = pytest.mark.parametrize("change", CHANGES, ids=str)
MIXED = torch.tensor([900, 10, 480, 20])


@torch.no_grad()
def output(change: Change, x: Tensor, timestep: object) -> Tensor:
    with change.applied(Denoiser().eval(), CALIBRATION) as denoiser:
        return denoiser(x, timestep)


@EVERY
def test_each_timestep_takes_its_own_scale(change: Change):
    x = batch(4)
    at = [output(change, x, t) for t in TIMESTEPS]
    assert not torch.equal(at[0], at[1])
    assert torch.equal(output(change, x, 870), at[2])


@EVERY
def test_a_batch_of_mixed_timesteps_is_that_of_single_calls(change: Change):
    x = batch(4)
    singles = [output(change, x[i : i + 1], MIXED[i]) for i in range(4)]
    torch.testing.assert_close(output(change, x, MIXED), torch.cat(singles))


@EVERY
def test_afterwards_nothing_is_left(change: Change):
    denoiser = Denoiser().eval()
    with change.applied(denoiser, CALIBRATION):
        pass
    assert not denoiser._forward_pre_hooks
    assert not denoiser._forward_hooks
    assert type(denoiser.linear) is nn.Linear
    assert not denoiser.linear._forward_pre_hooks


@EVERY
def test_without_tables_the_layer_is_named(change: Change):
    with (
        pytest.raises(FormatError, match=r"layer (linear|conv): step_scales needs its calibrated"),
        change.applied(Denoiser().eval(), Calibration()),
    ):
        pass


@pytest.mark.parametrize("outer", [SplitInput(3), ConstantTokens(1)], ids=str)
def test_an_input_is_rounded_as_the_packed_layer_rounds_it(outer: object):
    """At 8 bits of weight, what the weight's own rounding changes is little beside it."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor, timestep: object) -> Tensor:
            return self.layer(x)

    denoiser, x = Tokens().eval().requires_grad_(False), batch(1)[0]
    stepped = Choice("int8/channel", "uint2/step", (outer, StepScales(2)))
    calls = [Call((scale * x,), {"timestep": scale}) for scale in (1, 2)]
    tensors = dict(step_scales(denoiser, {"layer": stepped}, calls)["layer"])
    if isinstance(outer, ConstantTokens):
        constant = denoiser(x, 1)[:1, :1].float()
        tensors["constant"] = constant[0].view(torch.int32)
        tensors["known_input"] = x[0, :1].bfloat16().view(torch.int16)
    calibration = Calibration(tensors={"layer": tensors})
    pack_layer("layer", denoiser.layer, Plan({"layer": stepped}), calibration)  # can be packed

    @torch.no_grad()
    def changed(change: Change) -> Tensor:
        with change.applied(denoiser, calibration) as found:
            return found(x[:1], 1)

    rounded = changed(InputChange("layer", stepped))
    packed = changed(LayerChange("layer", stepped))
    alone = changed(LayerChange("layer", Choice("int8/channel")))
    plain = denoiser(x[:1], 1)
    assert (rounded - packed).norm() < 3 * (alone - plain).norm() < (rounded - plain).norm()


def test_more_bits_make_less_noise():
    denoiser = Denoiser().eval().requires_grad_(False)
    calls = []
    for t in (10, 500, 900):
        x = (t / 500) * batch(2, seed=t)
        with torch.no_grad():
            calls.append(Call((x, torch.tensor(t)), {}, output=denoiser(x, t), timestep=t))
    found = []
    for width in (2, 4, 6, 8):
        stepped = choice("int8/channel", f"uint{width}/step")
        tensors = step_scales(denoiser, {"linear": stepped}, calls)
        change = InputChange("linear", stepped)
        found.append(noise(denoiser, change, calls, Calibration(tensors=tensors)))
    assert found == sorted(found, reverse=True)
    assert found[0] > 10 * found[-1]
