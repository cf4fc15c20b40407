from collections import OrderedDict

import pytest
from torch import nn

from mezzotint._patterns import matches
from mezzotint.errors import UsageError
from mezzotint.plan import Choice, activation_name, uniform_choice, uniform_plan
from mezzotint.runtime import packed_layers, quantize_module

FLOAT = Choice()
W4 = Choice("int4/channel")


def model() -> nn.Module:
    def block() -> nn.Module:
        return nn.Sequential(
            OrderedDict(to_q=nn.Linear(4, 4), to_k=nn.Linear(4, 4), norm=nn.LayerNorm(4))
        )

    return nn.Sequential(
        OrderedDict(
            conv_in=nn.Conv2d(3, 4, 1),
            down=nn.Sequential(block(), block()),
            down2=block(),
            up=nn.ConvTranspose2d(4, 4, 2),
        )
    )


LAYERS = ["conv_in", *(f"{b}.{n}" for b in ("down.0", "down.1", "down2") for n in ("to_q", "to_k"))]


def floating(*exclude: str) -> list[str]:
    plan = uniform_plan(model(), weight_bits=4, exclude=exclude)
    assert set(plan.choices.values()) <= {FLOAT, W4}
    return [name for name in plan if not plan[name].quantized]


class TestPlan:
    def test_every_linear_and_conv2d_takes_the_same_choice(self):
        plan = uniform_plan(model(), weight_bits=4, act_bits=8)
        assert list(plan) == LAYERS
        assert set(plan.choices.values()) == {Choice("int4/channel", "int8/token")}

    def test_it_can_be_applied(self):
        module = model()
        quantize_module(module, uniform_plan(module, weight_bits=3))
        assert list(packed_layers(module)) == LAYERS

    def test_it_says_how_it_came_to_be(self):
        plan = uniform_plan(model(), weight_bits=4, act_bits=8, model="toy")
        assert plan.model == "toy"
        assert plan.context == {"recipe": "uniform", "weight_bits": 4, "act_bits": 8}

    def test_subclasses_are_left_out(self):
        module = nn.Sequential(type("MyLinear", (nn.Linear,), {})(2, 2), nn.Linear(2, 2))
        assert list(uniform_plan(module, weight_bits=4)) == ["1"]

    def test_sixteen_bits_change_nothing(self):
        assert uniform_plan(model(), weight_bits=16).quantized == {}


class TestExclude:
    @pytest.mark.parametrize(
        ("patterns", "expected"),
        [
            ((), []),
            (("down.0.to_q",), ["down.0.to_q"]),
            (("down.0",), ["down.0.to_q", "down.0.to_k"]),
            (("down",), [f"down.{i}.{n}" for i in (0, 1) for n in ("to_q", "to_k")]),
            (("down.*.to_k",), ["down.0.to_k", "down.1.to_k"]),
            (("*to_k",), ["down.0.to_k", "down.1.to_k", "down2.to_k"]),
            (("down?.to_[qk]",), ["down2.to_q", "down2.to_k"]),
            ((r"re:down\.\d\.to_q",), ["down.0.to_q", "down.1.to_q"]),
            ((r"re:.*_in",), ["conv_in"]),
            (("conv_in", "down2", "*.1.to_q"), ["conv_in", "down.1.to_q", *LAYERS[-2:]]),
            (("*",), LAYERS),
        ],
        ids=str,
    )
    def test_excluded_layers_stay_floating(self, patterns: tuple[str, ...], expected: list[str]):
        assert floating(*patterns) == expected

    def test_a_regular_expression_is_for_the_whole_name(self):
        assert not matches("down.0.to_q", "re:down")
        assert not matches("down.0.to_q", "re:to_q")

    def test_a_name_is_not_a_prefix_of_a_sibling(self):
        assert matches("down.0", "down")
        assert not matches("down2.to_q", "down")

    def test_case_matters(self):
        assert not matches("down.0", "Down*")

    def test_the_plan_says_why(self):
        plan = uniform_plan(model(), weight_bits=4, exclude=["conv_in"])
        assert plan.reasons == {"conv_in": "excluded by name"}

    @pytest.mark.parametrize("pattern", ["mid", "", "down.0.norm", "up", "*.to_v", "re:q", "re:"])
    def test_a_pattern_that_names_no_layer_is_refused(self, pattern: str):
        with pytest.raises(UsageError, match=f"'{pattern}'".replace("*", r"\*") + " names no"):
            floating("conv_in", pattern)

    def test_a_malformed_regular_expression_is_refused(self):
        with pytest.raises(UsageError, match=r"'re:\('.*not a valid regular expression"):
            floating("re:(")


class TestWidths:
    @pytest.mark.parametrize("bits", range(1, 9))
    def test_weights_have_one_to_eight(self, bits: int):
        assert uniform_choice(bits, 16) == Choice(f"int{bits}/channel")

    @pytest.mark.parametrize("bits", range(2, 9))
    def test_activations_have_two_to_eight(self, bits: int):
        assert activation_name(bits) == f"int{bits}/token"

    @pytest.mark.parametrize("bits", [-1, 0, 9, 15, 17, 32])
    def test_other_weight_widths_are_refused(self, bits: int):
        with pytest.raises(UsageError, match=f"weight_bits is {bits}"):
            uniform_plan(model(), weight_bits=bits)

    @pytest.mark.parametrize("bits", [-1, 0, 1, 9, 32])
    @pytest.mark.parametrize("weight_bits", [4, 16])
    def test_other_activation_widths_are_refused(self, bits: int, weight_bits: int):
        with pytest.raises(UsageError, match=f"act_bits is {bits}"):
            uniform_plan(model(), weight_bits=weight_bits, act_bits=bits)

    def test_activations_alone_are_not_quantized_in_silence(self):
        with pytest.raises(UsageError, match="act_bits 8 goes with quantized weights"):
            uniform_plan(model(), weight_bits=16, act_bits=8)
