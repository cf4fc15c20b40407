import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from mezzotint.calibration import input_ranges
from mezzotint.errors import FormatError, PlanError
from mezzotint.formats import MINMAX, RangeSearch, as_bits
from mezzotint.measuring import Change, InputChange, LayerChange, PlanChange, Unchanged
from mezzotint.models import Call
from mezzotint.plan import Choice, Encoding, Plan
from mezzotint.runtime import (
    Calibration,
    ConstantTokens,
    InputRange,
    PackedLayer,
    SplitInput,
    pack_layer,
)
from tests.measuring.figures import CALIBRATION, noise
from tests.measuring.restoring import assert_restored, state

CONV = "conv_in"
SKIP = "up_blocks.1.resnets.0.conv_shortcut"
QUERY = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
KEY = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
LAYERS = (CONV, SKIP, QUERY, "time_embedding.linear_1")

W3 = Choice("int3/channel")
CHOICES = (
    Choice("int2/channel"),
    Choice("uint4/group8"),
    Choice("int4/channel", "int8/token"),
    Choice("uint3/tensor", "uint8/token"),
)
DYNAMIC = Choice("int8/channel", "int4/token")
STATIC = Choice("int8/channel", "uint4/tensor")


@dataclass(frozen=True)
class _Labelled(SplitInput):
    """A structure with a field that its label leaves out."""

    kind = "labelled"
    strength: float = 1.0


class TestNames:
    def test_every_change_has_a_name_of_its_own(self):
        structured = [
            Choice("int4/channel", structures=(each,))
            for each in (SplitInput(3), ConstantTokens(1))
        ]
        choices = [*CHOICES, DYNAMIC, STATIC, Choice("int4/channel"), *structured]
        changes = [LayerChange(layer, choice) for layer in LAYERS for choice in choices]
        changes += [InputChange(layer, choice) for layer in LAYERS for choice in (DYNAMIC, STATIC)]
        changes += [PlanChange(Plan({layer: choice})) for layer in LAYERS for choice in choices]
        searches = [MINMAX, RangeSearch(steps=7), RangeSearch(steps=7, power=2.4000001)]
        changes += [LayerChange("conv_in", W3, Encoding(search)) for search in searches]
        changes += [
            PlanChange(Plan({"conv_in": W3}, encoding=Encoding(search))) for search in searches
        ]
        changes += [Unchanged()]
        assert len({change.name for change in changes}) == len(changes)

    def test_structures_of_one_label_have_two_names(self):
        left, right = (W3.with_structures(_Labelled(4, value)) for value in (0.5, 0.25))
        assert left.label == right.label
        for kind in (LayerChange, InputChange):
            assert kind("conv_in", left).name != kind("conv_in", right).name
            assert kind("conv_in", left).name == kind("conv_in", replace(left)).name

    def test_names_say_what_is_changed(self):
        assert (
            LayerChange("a", Choice("int4/channel")).name
            == "a | int4/channel | float | mse, nearest"
        )
        assert LayerChange("a", DYNAMIC).name == "a | int8/channel | int4/token | mse, nearest"
        assert InputChange("a", DYNAMIC).name == "a | float | int4/token"


class TestChangedWeight:
    @pytest.mark.parametrize("name", LAYERS)
    @pytest.mark.parametrize("choice", CHOICES, ids=str)
    def test_only_the_layer_is_replaced_by_the_packed_one(
        self, unet: nn.Module, name: str, choice: Choice
    ):
        before = dict(unet.named_modules())
        packed = pack_layer(name, before[name], Plan({name: choice}), CALIBRATION)
        with LayerChange(name, choice).applied(unet, CALIBRATION) as changed:
            assert changed is unet
            layer = unet.get_submodule(name)
            assert isinstance(layer, PackedLayer)
            assert layer.choice == choice
            assert torch.equal(layer.dequantized_weight(), packed.dequantized_weight())
            assert {n for n, m in before.items() if unet.get_submodule(n) is not m} == {name}

    @pytest.mark.parametrize("choice", [*CHOICES, Choice()], ids=str)
    def test_everything_is_restored(self, unet: nn.Module, choice: Choice):
        before, layer = state(unet), unet.get_submodule(QUERY)
        storage = layer.weight.data_ptr()
        with LayerChange(QUERY, choice).applied(unet, CALIBRATION):
            pass
        assert unet.get_submodule(QUERY) is layer
        assert layer.weight.data_ptr() == storage
        assert_restored(unet, before)

    @pytest.mark.parametrize("kind", [LayerChange, InputChange])
    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, FormatError])
    def test_everything_is_restored_after_a_failure(
        self, unet: nn.Module, error: type[BaseException], kind: type[LayerChange | InputChange]
    ):
        before = state(unet)
        with pytest.raises(error), kind(QUERY, DYNAMIC).applied(unet, CALIBRATION):
            raise error
        assert_restored(unet, before)

    @pytest.mark.parametrize("kind", [LayerChange, InputChange])
    def test_everything_is_restored_after_a_missing_range(
        self, unet: nn.Module, kind: type[LayerChange | InputChange]
    ):
        before = state(unet)
        with (
            pytest.raises(FormatError, match=f"layer {QUERY}: uint4/tensor needs a calibrated"),
            kind(QUERY, STATIC).applied(unet, CALIBRATION),
        ):
            pass
        assert_restored(unet, before)

    def test_a_float_choice_changes_nothing(self, unet: nn.Module, calls: Sequence[Call]):
        assert noise(unet, LayerChange(QUERY, Choice()), calls) == 0.0

    @pytest.mark.parametrize("kind", [LayerChange, InputChange])
    def test_a_layer_of_another_kind_is_refused(
        self, unet: nn.Module, kind: type[LayerChange | InputChange]
    ):
        with (
            pytest.raises(PlanError, match="layer conv_norm_out is a GroupNorm"),
            kind("conv_norm_out", DYNAMIC).applied(unet, CALIBRATION),
        ):
            pass

    def test_a_weight_with_nan_is_refused_by_name(self, unet: nn.Module):
        unet.get_submodule(QUERY).weight.data[0, 0] = math.nan
        with (
            pytest.raises(FormatError, match=f"layer {QUERY}: .*NaN"),
            LayerChange(QUERY, W3).applied(unet, CALIBRATION),
        ):
            pass


class _Alone(nn.Module):
    """One layer as a denoiser."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@torch.no_grad()
def output(layer: nn.Module, change: Change, calibration: Calibration, x: Tensor) -> Tensor:
    alone = _Alone(layer)
    with change.applied(alone, calibration):
        return alone(x)


LINEAR = (nn.Linear(6, 5), (2, 4, 6))
CONV2D = (nn.Conv2d(6, 5, 3), (2, 6, 5, 5))


@pytest.mark.parametrize(("layer", "shape"), [LINEAR, CONV2D], ids=["linear", "conv2d"])
class TestChangedInput:
    """The weight stays floating; the input is what a packed layer would make of it."""

    RANGES = (InputRange(-1.0, 2.0), InputRange(-3.0, 0.5))

    @pytest.mark.parametrize("split", [0, 2])
    @pytest.mark.parametrize("choice", [DYNAMIC, STATIC], ids=str)
    def test_each_part_is_rounded_like_its_packed_part(
        self, layer: nn.Module, shape: tuple[int, ...], choice: Choice, split: int
    ):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        choice = choice.with_structures(*([SplitInput(split)] if split else []))
        calibration = Calibration({"layer": self.RANGES[: choice.parts]})
        packed = pack_layer("layer", layer, Plan({"layer": choice}), calibration)
        axis = -1 if isinstance(layer, nn.Linear) else 1
        pieces = x.split([split, 6 - split], axis) if split else (x,)
        rounded = [part.round_input(p) for part, p in zip(packed.parts, pieces, strict=True)]
        found = output(layer, InputChange("layer", choice), calibration, x)
        assert torch.equal(found, layer(torch.cat(rounded, axis)))
        assert not torch.equal(found, layer(x))

    def test_the_input_itself_is_left_alone(self, layer: nn.Module, shape: tuple[int, ...]):
        x = torch.randn(shape)
        before = x.clone()
        output(layer, InputChange("layer", DYNAMIC), CALIBRATION, x)
        assert torch.equal(x, before)

    def test_a_floating_input_changes_nothing(self, layer: nn.Module, shape: tuple[int, ...]):
        x = torch.randn(shape)
        assert torch.equal(output(layer, InputChange("layer", W3), CALIBRATION, x), layer(x))


class TestConstantTokens:
    CHOICE = Choice("int8/channel", "int2/token", structures=(ConstantTokens(1),))

    def test_only_the_other_tokens_are_rounded(self):
        layer, shape = LINEAR
        x = torch.randn(shape)
        found = output(layer, InputChange("layer", self.CHOICE), CALIBRATION, x)
        assert torch.equal(found[:, 0], layer(x)[:, 0])
        assert not torch.equal(found[:, 1:], layer(x)[:, 1:])

    def test_a_packed_layer_puts_out_its_constant(self):
        layer, shape = LINEAR
        x = torch.randn(shape)
        x[:, 0] = 1.0
        known = as_bits(torch.ones(1, shape[-1], dtype=torch.bfloat16))
        tensors = {"constant": as_bits(torch.full((1, 5), 7.0)), "known_input": known}
        calibration = Calibration(tensors={"layer": tensors})
        found = output(layer, LayerChange("layer", self.CHOICE), calibration, x)
        assert bool((found[:, 0] == 7).all())


def test_rounding_weight_and_input_costs_more_than_either(unet: nn.Module, calls: Sequence[Call]):
    calibration = Calibration(input_ranges(unet, {KEY: STATIC}, calls, momentum=None))
    weight, both = Choice("int4/channel"), Choice("int4/channel", "uint4/tensor")
    changes = (LayerChange(KEY, weight), InputChange(KEY, both), LayerChange(KEY, both))
    alone, inputs, together = (noise(unet, change, calls, calibration) for change in changes)
    assert 0 < min(alone, inputs) <= max(alone, inputs) < together
