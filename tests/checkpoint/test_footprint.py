"""The promise of every format: memory and file hold the bytes that the format claims."""

from pathlib import Path

import pytest
from diffusers import UNet2DConditionModel
from torch import nn

import mezzotint as mz
from mezzotint.formats import parse_weight_format
from mezzotint.runtime import module_bytes
from tests.checkpoint import packed
from tests.models import tiny

CHOICES = [
    mz.Choice("int1/channel"),
    mz.Choice("uint2/channel"),
    mz.Choice("int3/channel"),
    mz.Choice("int4/channel", "int8/token"),
    mz.Choice("uint4/group32"),
    mz.Choice("uint5/group64"),
    mz.Choice("int6/tensor"),
    mz.Choice("uint7/tensor"),
    mz.Choice("int8/tensor"),
    mz.Choice("int8/channel", "uint8/tensor"),
    mz.Choice("int4/channel", "int8/tensor"),
]


def resident_bytes(model: nn.Module) -> int:
    """Bytes of the storages behind all tensors: a small view of a large storage counts in full."""
    storages = [tensor.untyped_storage() for tensor in model.state_dict().values()]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_memory_and_file_hold_the_same_bytes(choice: mz.Choice, tmp_path: Path):
    model = packed.packed_unet(choice)
    model.save_pretrained(tmp_path)
    loaded = UNet2DConditionModel.from_pretrained(tmp_path)
    stored = packed.tensor_bytes(tmp_path / packed.WEIGHTS)
    assert resident_bytes(model) == pytest.approx(stored, rel=0.02)
    assert resident_bytes(loaded) == pytest.approx(stored, rel=0.02)
    assert module_bytes(loaded) == stored


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_the_bytes_are_those_of_the_format(choice: mz.Choice):
    model, original = packed.packed_unet(choice), tiny.tiny_unet()
    weights = {name: original.get_submodule(name).weight for name in model.hf_quantizer.plan}
    floating = module_bytes(original) - sum(4 * weight.numel() for weight in weights.values())
    weight_format = parse_weight_format(choice.weight)
    claimed = sum(weight_format.stored_bytes(tuple(weight.shape)) for weight in weights.values())
    inputs = 5 * len(weights) if choice.activation.endswith("/tensor") else 0
    assert module_bytes(model) == floating + claimed + inputs


def test_only_planned_layers_change():
    original, model = tiny.tiny_unet(), packed.packed_unet()
    planned = {f"{name}.weight" for name in model.hf_quantizer.plan.quantized}
    assert original.state_dict().keys() - model.state_dict().keys() == planned
    assert {name for name, _ in model.named_parameters()} == (
        {name for name, _ in original.named_parameters()} - planned
    )
