import copy
import math
import re
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from torch import nn

from mezzotint.errors import FormatError, PlanError
from mezzotint.formats import MINMAX
from mezzotint.plan import Choice, Encoding, Plan
from mezzotint.runtime import (
    Calibration,
    InputRange,
    QuantConv2d,
    QuantLinear,
    check_plan,
    dequantize_module,
    empty_layer,
    executions,
    pack_module,
    packed_copy,
    packed_layers,
    registered_kernels,
)
from tests.runtime.layers import RANGE, conv, linear, noise

W4 = Choice("int4/channel")
W4A8 = Choice("int4/channel", "int8/token")
STATIC = Choice("uint4/channel", "uint8/tensor")


def model(**more: nn.Module) -> nn.Sequential:
    """A convolution, a norm, and two Linears one level down."""
    torch.manual_seed(0)
    head = nn.Sequential(OrderedDict(up=nn.Linear(6, 9), down=nn.Linear(9, 3, bias=False)))
    layers = OrderedDict(
        conv=conv(padding=1), norm=nn.GroupNorm(2, 6), pool=nn.AdaptiveAvgPool2d(1)
    )
    return nn.Sequential(layers | OrderedDict(flat=nn.Flatten(), head=head) | more)


X = noise(2, 4, 5, 5)
ALL = Plan({"conv": W4, "head.up": W4A8, "head.down": W4A8})


def untouched(module: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    after = module.state_dict()
    return after.keys() == before.keys() and all(
        torch.equal(after[name], before[name]) or bool(before[name].isnan().any())
        for name in before
    )


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


class TestQuantize:
    def test_layers_of_the_plan_are_replaced_in_place(self):
        module = model()
        assert pack_module(module, ALL) is module
        assert {name: type(layer) for name, layer in packed_layers(module).items()} == {
            "conv": QuantConv2d,
            "head.up": QuantLinear,
            "head.down": QuantLinear,
        }
        assert {name: layer.choice for name, layer in packed_layers(module).items()} == ALL.choices

    def test_what_the_plan_leaves_floating_is_the_same_object(self):
        module = model()
        kept = (module.conv, module.norm, module.head.down)
        pack_module(module, Plan({"conv": Choice(), "head.up": W4}))
        assert (module.conv, module.norm, module.head.down) == kept

    def test_only_the_planned_layers_change_the_output(self):
        module = model()
        exact = module(X)
        assert torch.equal(pack_module(module, Plan({"conv": Choice()}))(X), exact)
        assert not torch.equal(pack_module(module, Plan({"conv": W4}))(X), exact)

    def test_the_float_weights_are_gone(self):
        module = pack_module(model(), ALL)
        assert {name for name, _ in module.named_parameters()} == {
            *("conv.bias", "norm.weight", "norm.bias", "head.up.bias")
        }

    def test_progress_hears_each_layer_in_the_plan_s_order(self):
        heard: list[str] = []
        plan = Plan({"head.down": W4, "conv": W4, "head.up": Choice()})
        pack_module(model(), plan, progress=heard.append)
        assert heard == ["head.down", "conv"]

    def test_ranges_are_searched_unless_told_otherwise(self):
        searched, plain = model(), model()
        pack_module(searched, ALL)
        pack_module(plain, replace(ALL, encoding=Encoding(MINMAX)))
        weight = model().head.up.weight.detach()
        errors = [
            float((m.head.up.dequantized_weight() - weight).square().sum())
            for m in (searched, plain)
        ]
        assert errors[0] < errors[1]

    def test_calibrated_ranges_reach_their_layers(self):
        module = model()
        ranges = {"conv": (InputRange(-1.0, 1.0),), "head.up": (InputRange(0.0, 2.55),)}
        plan = Plan({"conv": STATIC, "head.up": STATIC})
        pack_module(module, plan, Calibration(input_ranges=ranges))
        x = torch.tensor([[-1.0, 0.0, 0.012, 1.0, 2.55, 9.0]])
        rounded = module.head.up.round_input(x)[0]
        assert rounded.tolist() == pytest.approx([0.0, 0.0, 0.01, 1.0, 2.55, 2.55], abs=1e-5)


class TestRefusals:
    """A refused plan leaves the module as it was, whatever stands before the fault."""

    @pytest.mark.parametrize("name", ["head.middle", "heads", "conv.weight", "head.up.0"])
    def test_an_unknown_layer(self, name: str):
        module = model()
        before = state(module)
        with pytest.raises(PlanError, match=f"layer {re.escape(name)}.*Sequential does not have"):
            pack_module(module, Plan({"conv": W4, name: W4}))
        assert untouched(module, before)

    def test_an_unknown_layer_counts_even_when_it_stays_floating(self):
        with pytest.raises(PlanError, match=r"layer head\.middle"):
            check_plan(model(), Plan({"head.middle": Choice()}))

    @pytest.mark.parametrize(
        ("layer", "kind"),
        [
            (nn.Conv1d(4, 4, 3), "Conv1d"),
            (nn.Conv3d(4, 4, 3), "Conv3d"),
            (nn.ConvTranspose2d(4, 4, 3), "ConvTranspose2d"),
            (nn.LayerNorm(4), "LayerNorm"),
            (nn.Embedding(4, 4), "Embedding"),
            (nn.Bilinear(2, 2, 2), "Bilinear"),
            (type("LoRALinear", (nn.Linear,), {})(4, 4), "LoRALinear"),
            (type("PaddedConv2d", (nn.Conv2d,), {})(4, 4, 3), "PaddedConv2d"),
            (nn.Sequential(), "Sequential"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_an_unsupported_type(self, layer: nn.Module, kind: str):
        module = model(odd=layer)
        before = state(module)
        with pytest.raises(PlanError, match=f"layer odd is a {kind};.*choose 'float'"):
            pack_module(module, Plan({"conv": W4, "odd": W4}))
        assert untouched(module, before)

    def test_an_unsupported_type_may_stay_floating(self):
        check_plan(model(odd=nn.Conv1d(4, 4, 3)), Plan({"conv": W4, "odd": Choice()}))

    @pytest.mark.parametrize("mode", ["reflect", "circular"])
    def test_a_padding_mode_of_its_own(self, mode: str):
        module = model(odd=conv(padding=1, padding_mode=mode))
        before = state(module)
        with pytest.raises(PlanError, match=f"layer odd: padding_mode '{mode}'.*choose 'float'"):
            pack_module(module, Plan({"conv": W4, "odd": W4}))
        assert untouched(module, before)

    @pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
    def test_an_empty_weight(self):
        module = model(odd=nn.Linear(0, 4))
        before = state(module)
        with pytest.raises(PlanError, match=r"layer odd: .*cannot be quantized: .*choose 'float'"):
            pack_module(module, Plan({"conv": W4, "odd": W4}))
        assert untouched(module, before)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_weight_with_nan_or_infinity(self, value: float):
        module = model()
        module.head.down.weight.data[1, 2] = value
        before = state(module)
        with pytest.raises(FormatError, match=r"layer head\.down: .*NaN or infinite"):
            pack_module(module, ALL)
        assert untouched(module, before)

    def test_a_static_format_without_its_range(self):
        module = model()
        before = state(module)
        plan = Plan({"conv": STATIC, "head.up": STATIC})
        with pytest.raises(FormatError, match=r"layer head\.up: uint8/tensor needs a calibrated"):
            pack_module(module, plan, Calibration(input_ranges={"conv": (RANGE,)}))
        assert untouched(module, before)

    def test_a_layer_that_is_packed_already(self):
        module = pack_module(model(), ALL)
        with pytest.raises(PlanError, match="layer conv is a QuantConv2d"):
            pack_module(module, Plan({"conv": W4}))

    def test_a_bare_layer_that_has_no_parent(self):
        with pytest.raises(PlanError, match="bare Linear cannot be replaced in place"):
            pack_module(linear(), Plan({"": W4}))


class TestFloatingParameters:
    def test_trained_biases_and_norms_are_taken_and_the_original_keeps_its_own(self):
        module = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 4))
        plan = Plan({"0": Choice("int4/channel")})
        trained = {"0.bias": torch.randn(6), "1.weight": torch.randn(6), "2.bias": torch.randn(4)}
        before = {name: module.get_parameter(name).clone() for name in trained}
        packed = packed_copy(module, plan, Calibration(floating=trained))
        for name, value in trained.items():
            assert torch.equal(packed.get_parameter(name), value)
            assert torch.equal(module.get_parameter(name), before[name])

    @pytest.mark.parametrize("name", ["3.bias", "0.bias"], ids=["unknown", "of another shape"])
    def test_those_of_another_model_are_refused(self, name: str):
        module = nn.Sequential(nn.Linear(4, 6))
        calibration = Calibration(floating={name: torch.zeros(5)})
        with pytest.raises(PlanError, match=rf"has a {name} of shape \(5,\)"):
            packed_copy(module, Plan({"0": Choice("int4/channel")}), calibration)


class TestEmptyLayers:
    def test_an_empty_layer_has_the_geometry_and_no_weight(self):
        empty = empty_layer("conv", conv(padding=1), W4A8)
        assert isinstance(empty, QuantConv2d)
        assert empty.choice == W4A8
        assert int(empty.get_buffer("weight_codes").max()) == 0

    def test_an_unsupported_layer_is_refused_by_name(self):
        with pytest.raises(PlanError, match=r"layer mid\.proj is a Conv1d"):
            empty_layer("mid.proj", nn.Conv1d(2, 2, 1), W4)


class TestDequantize:
    def test_stock_layers_with_the_same_weights_come_back(self):
        module = pack_module(model(), Plan({"conv": W4, "head.up": W4, "head.down": W4}))
        expected = module(X)
        restored = dequantize_module(module)
        assert restored is module
        assert packed_layers(module) == {}
        assert [type(module.conv), type(module.head.up)] == [nn.Conv2d, nn.Linear]
        assert torch.allclose(module(X), expected, atol=1e-6)
        assert module.state_dict().keys() == model().state_dict().keys()

    def test_a_half_precision_model_still_runs(self):
        # Its bias-free layer stores no floating tensor that could tell the dtype.
        module = pack_module(model().to(torch.bfloat16), ALL)
        dequantize_module(module)
        assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
        assert module(X.bfloat16()).dtype == torch.bfloat16

    def test_a_module_without_floating_parameters_gets_float32(self):
        module = nn.Sequential(linear(bias=False))
        pack_module(module, Plan({"0": W4}))
        assert dequantize_module(module)[0].weight.dtype == torch.float32

    def test_what_was_dequantized_can_be_quantized_again(self):
        plan = Plan({"conv": W4, "head.up": W4}, encoding=Encoding(MINMAX))
        module = pack_module(model(), plan)
        once = copy.deepcopy(module)
        pack_module(dequantize_module(module), plan)
        assert torch.allclose(module(X), once(X), atol=1e-5)


class TestExecutions:
    def test_each_packed_layer_tells_how_it_runs(self):
        module = pack_module(model(), Plan({"conv": W4A8, "head.up": W4A8, "head.down": W4}))
        told = {e.layer: (e.choice, e.kernel, e.arithmetic, e.reason) for e in executions(module)}
        preferred, other = [k.name for k in registered_kernels() if k.name.startswith("cpu-int8")]
        assert told == {
            "conv": (W4A8, preferred, "int8", None),
            "head.up": (W4A8, preferred, "int8", None),
            "head.down": (
                W4,
                "cpu-float",
                "float",
                f"{preferred}, {other}: needs activations of 8 bits or less",
            ),
        }

    def test_a_float_module_has_none(self):
        assert executions(model()) == ()


@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_layer_with_hooks_is_refused(kind: str):
    module = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    handle = getattr(module[1], kind)(lambda *arguments: None)
    plan = Plan({"0": Choice("int8/channel"), "1": Choice("int8/channel")})
    with pytest.raises(PlanError, match=r"layer 1 has forward hooks.*remove them"):
        pack_module(module, plan)
    assert type(module[0]) is nn.Linear
    handle.remove()
    pack_module(module, plan)
