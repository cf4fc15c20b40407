"""What a choice costs, in bytes."""

import pytest

from mezzotint.errors import FormatError
from mezzotint.models import inventory
from mezzotint.plan import Choice
from mezzotint.recipes.costs import choice_bytes
from mezzotint.runtime import pack_layer
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
        stored = list(pack_layer("conv_in", unet.conv_in, choice).weight_tensors().values())
    assert choice_bytes(layer, choice, plain) == sum(tensor.nbytes for tensor in stored)


def test_a_format_for_other_layers_is_refused_with_the_layer():
    unet = tiny.tiny_unet()
    layer = next(layer for layer in inventory(unet) if layer.name == "conv_in")
    with pytest.raises(FormatError, match=r"layer conv_in: mixed/.* holds 9 output channels"):
        choice_bytes(layer, Choice("mixed/int2:4,int4:5"), unet.conv_in.weight)
