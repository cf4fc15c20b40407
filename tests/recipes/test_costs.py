"""Bytes that a choice costs."""

import pytest

from mezzotint.errors import FormatError, InfeasibleBudgetError
from mezzotint.models import inventory, text_readers
from mezzotint.plan import Budget, Choice, Plan
from mezzotint.recipes.costs import byte_limit, choice_bytes
from mezzotint.runtime import ConstantTokens, pack_layer
from tests.models import tiny


@pytest.mark.parametrize(
    "weight", ["float", "int4/channel", "kmeans4/channel", "kmeans3/tensor", "mixed/int2:8,int4:8"]
)
def test_a_choice_costs_the_bytes_that_are_stored(weight: str):
    unet = tiny.tiny_unet()
    layer = next(layer for layer in inventory(unet) if layer.name == "conv_in")
    plain, choice = unet.conv_in.weight, Choice(weight)
    stored = [plain]
    if choice.quantized:
        packed = pack_layer("conv_in", unet.conv_in, Plan({"conv_in": choice}))
        stored = list(packed.weight_tensors().values())
    assert choice_bytes(layer, choice, plain) == sum(tensor.nbytes for tensor in stored)


def test_a_format_for_other_layers_is_refused_with_the_layer():
    unet = tiny.tiny_unet()
    layer = next(layer for layer in inventory(unet) if layer.name == "conv_in")
    with pytest.raises(FormatError, match=r"layer conv_in: mixed/.* holds 9 output channels"):
        choice_bytes(layer, Choice("mixed/int2:4,int4:5"), unet.conv_in.weight)


class _Switched(ConstantTokens):
    kind = "switched"
    left_out_by = "tokens=false"


class _Unswitched(ConstantTokens):
    kind = "unswitched"
    left_out_by = None


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        (ConstantTokens, "bos=false"),
        (_Switched, "tokens=false"),
        (_Unswitched, "no unswitched"),
    ],
    ids=["constant tokens", "with an option", "without"],
)
def test_leaving_a_structure_out_is_named_only_where_its_bytes_are_counted(
    kind: type[ConstantTokens], remedy: str
):
    unet = tiny.tiny_unet()
    layers = inventory(unet)
    layer = next(layer for layer in layers if layer.name in text_readers(layers))
    weight, choice = (
        unet.get_submodule(layer.name).weight,
        Choice("int2/channel", structures=(kind(1),)),
    )
    stored, plain = (choice_bytes(layer, one, weight) for one in (choice, choice.plain))
    budget = Budget(weight_bits=(plain + 1) * 8 / layer.parameters)

    def refusal(counted: int) -> str:
        with pytest.raises(InfeasibleBudgetError) as refused:
            byte_limit(budget, unet, [layer], {layer.name: {choice: counted}})
        return str(refused.value)

    assert refusal(stored).endswith(f"; with {remedy} it can be met")
    assert refusal(stored - 1).endswith("; allow more")  # nominal widths count no structure
