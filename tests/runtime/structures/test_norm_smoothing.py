"""Inputs that the norm before the layers smooths: what `smoothing` computes, without its bytes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from mezzotint._stored_dtypes import note_dtypes, stored_state
from mezzotint.calibration import calibrated
from mezzotint.errors import FormatError, PlanError
from mezzotint.measuring.change import InputChange, LayerChange
from mezzotint.models import Call
from mezzotint.plan import Choice, Encoding, Plan, Structure
from mezzotint.runtime import (
    Calibration,
    ConstantTokens,
    NormSmoothing,
    Smoothing,
    SplitInput,
    StepScales,
    dequantize_module,
    module_bytes,
    packed_copy,
    stored_tensors,
)

WEIGHT = "int4/channel"
READERS = ("to_q", "to_k")
IN_NORM, ALONE = NormSmoothing("norm"), Smoothing()


class Block(nn.Module):
    """Two projections of a norm's output, and a convolution after another norm."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(8, bias=bias)
        self.to_q, self.to_k = nn.Linear(8, 6), nn.Linear(8, 6, bias=False)
        self.group_norm, self.conv = nn.GroupNorm(2, 6), nn.Conv2d(6, 5, 3, padding=1)
        for norm in (self.norm, self.group_norm):
            nn.init.normal_(norm.weight)
            if norm.bias is not None:
                nn.init.normal_(norm.bias)
        self.norm.weight.data[2] *= 100

    def forward(self, x: Tensor, timestep: Tensor | None = None) -> Tensor:
        y = self.norm(x)
        image = (self.to_q(y) + self.to_k(y)).transpose(1, 2).unflatten(2, (2, 3))
        return self.conv(self.group_norm(image))


def calls() -> tuple[Call, ...]:
    torch.manual_seed(1)
    return tuple(Call((torch.randn(2, 6, 8), torch.tensor(each)), {}) for each in (0.0, 10.0, 20.0))


def plan(
    structure: Structure, of_conv: Structure, activation: str = "int8/token", **encoding: object
) -> Plan:
    inner = (StepScales(3),) if activation.endswith("step") else ()
    choices = dict.fromkeys(READERS, Choice(WEIGHT, activation, (structure, *inner)))
    choices["conv"] = Choice(WEIGHT, activation, (of_conv, *inner))
    return Plan(choices, encoding=Encoding(**encoding))


def both(activation: str = "int8/token", **encoding: object) -> tuple[Plan, Plan]:
    """Smoothed by norms, and with exponents stored."""
    norms = plan(IN_NORM, NormSmoothing("group_norm"), activation, **encoding)
    return norms, plan(ALONE, ALONE, activation, **encoding)


def packed(made: Plan, module: nn.Module | None = None) -> nn.Module:
    module = module or Block()
    return packed_copy(module, made, calibrated(module, made, calls())).eval()


@torch.no_grad()
def run(module: nn.Module) -> Tensor:
    return torch.stack([call.run(module) for call in calls()])


class TestSameOutput:
    @pytest.mark.parametrize(
        "encoding",
        [{}, {"rounding": "feedback", "bias_correction": True}],
        ids=["nearest", "feedback"],
    )
    @pytest.mark.parametrize("activation", ["float", "int8/token", "uint8/tensor", "uint4/step"])
    def test_it_computes_what_stored_exponents_do_bit_for_bit(
        self, activation: str, encoding: Mapping[str, object]
    ):
        in_norms, stored = (packed(each) for each in both(activation, **encoding))
        assert torch.equal(run(in_norms), run(stored))
        assert not torch.equal(in_norms.norm.weight, stored.norm.weight)

    def test_smoothing_changes_what_is_rounded(self):
        plain = Plan(dict.fromkeys((*READERS, "conv"), Choice(WEIGHT, "int8/token")))
        assert not torch.equal(run(packed(both()[0])), run(packed(plain)))

    def test_the_floating_model_is_left_as_it_was(self):
        module, before = Block(), Block().state_dict()
        packed(both()[0], module)
        assert all(torch.equal(each, before[name]) for name, each in module.state_dict().items())

    def test_norms_without_a_bias_smooth_too(self):
        in_norms, stored = (packed(each, Block(bias=False)) for each in both())
        assert torch.equal(run(in_norms), run(stored))

    def test_it_dequantizes_to_a_model_that_computes_the_same(self):
        module = packed(both("float")[0])
        expected = run(module)
        torch.testing.assert_close(run(dequantize_module(module)), expected, rtol=1e-4, atol=1e-4)

    def test_what_training_made_of_a_norm_is_smoothed(self):
        made, _ = both()
        module = Block()
        found = calibrated(module, made, calls())
        trained = Calibration(
            tensors=found.tensors, floating={"norm.weight": module.norm.weight.detach() * 3}
        )
        before, after = (packed_copy(module, made, each).norm.weight for each in (found, trained))
        assert torch.equal(after, before * 3)


class TestBytes:
    def test_a_byte_less_is_stored_for_each_input_channel_of_each_layer(self):
        in_norms, stored = (module_bytes(packed(each)) for each in both())
        assert stored - in_norms == 8 + 8 + 6

    def test_nothing_is_stored_beside_the_weight(self):
        plain = stored_tensors(Choice(WEIGHT), (6, 8))
        found = stored_tensors(Choice(WEIGHT, structures=(IN_NORM,)), (6, 8))
        assert {name.removeprefix("smoothed."): spec for name, spec in found.items()} == plain

    def test_no_exponent_stays_in_memory(self):
        assert not any("exponent" in name for name, _ in packed(both()[0]).named_buffers())

    def test_a_norm_keeps_the_dtype_that_it_is_stored_in(self):
        module = Block()
        module.norm.half().float()
        note_dtypes(module, {"norm.weight": torch.float16, "norm.bias": torch.float16})
        made = packed(both()[0], module)
        with stored_state(made):
            state = made.state_dict()
        assert state["norm.weight"].dtype == torch.float16
        assert torch.equal(state["norm.weight"].float(), made.norm.weight)


class TestOneLayerAlone:
    """Changes of single layers, whose norms stay as they are."""

    @pytest.mark.parametrize("change", [LayerChange, InputChange])
    def test_it_smooths_its_input_itself(self, change: type[LayerChange] | type[InputChange]):
        made, stored = both()
        module = Block()
        found = calibrated(module, made, calls())
        outputs = []
        for each in (made, stored):
            with change("to_q", each["to_q"]).applied(module, found) as changed:
                outputs.append(run(changed))
        assert torch.equal(*outputs)
        assert not torch.equal(outputs[0], run(module))


class TestRefusals:
    @pytest.mark.parametrize(
        "structures",
        [
            (ALONE, IN_NORM),
            (IN_NORM, ALONE),
            (ConstantTokens(1), IN_NORM),
            (SplitInput(2), IN_NORM),
        ],
        ids=["within smoothing", "around smoothing", "constant tokens", "split"],
    )
    def test_it_is_the_first_structure_and_smooths_once(self, structures: tuple[Structure, ...]):
        with pytest.raises(FormatError, match=r"cannot hold"):
            Choice(WEIGHT, structures=structures)

    @pytest.mark.parametrize("norm", ["", 3, None], ids=repr)
    def test_a_norm_is_a_name(self, norm: object):
        with pytest.raises(FormatError, match="expected the name of a norm"):
            NormSmoothing(norm)  # type: ignore[arg-type]

    @pytest.mark.parametrize("norm", ["absent", "conv", "group_norm"])
    def test_a_norm_that_fits_no_input_is_named(self, norm: str):
        made = plan(NormSmoothing(norm), ALONE)
        with pytest.raises(PlanError, match=f"layer to_q: norm_smoothing: {norm} is no norm"):
            packed_copy(Block(), made)

    def test_exponents_that_differ_are_refused(self):
        made, _ = both()
        found = calibrated(Block(), made, calls())
        tensors = dict(found.tensors) | {
            "to_k": {"exponent": found.tensors["to_k"]["exponent"] + 1}
        }
        with pytest.raises(FormatError, match=r"layer to_k: .*exponents are not those of to_q"):
            packed_copy(Block(), made, Calibration(tensors=tensors))

    def test_it_needs_calibration(self):
        with pytest.raises(FormatError, match="norm_smoothing needs its calibrated exponent"):
            packed_copy(Block(), both()[0])


def test_it_stands_in_plans():
    made, _ = both()
    assert Plan.from_dict(made.to_dict()) == made
    assert made.to_dict()["layers"]["to_q"]["structures"] == [
        {"kind": "norm_smoothing", "norm": "norm"}
    ]
