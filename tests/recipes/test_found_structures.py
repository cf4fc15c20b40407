"""More than one quantizer per layer: where published shapes need it, and what a choice gets."""

from __future__ import annotations

import torch

from mezzotint.models import text_readers
from mezzotint.plan import Choice
from mezzotint.recipes.found_structures import FoundStructures, split_inputs
from mezzotint.runtime import ConstantTokens, SplitInput
from tests.models import architectures as published
from tests.models.architectures import graph_of, layers_of


def test_sdxl_has_nine_split_shortcuts_in_the_order_of_the_paper():
    splits = split_inputs(graph_of(published.SDXL), layers_of(published.SDXL), "shortcuts")
    assert list(splits.values()) == [1280, 1280, 1280, 1280, 640, 640, 640, 320, 320]
    assert all(name.endswith("conv_shortcut") for name in splits)


def test_sdxl_has_140_layers_that_read_the_first_token():
    assert len(text_readers(layers_of(published.SDXL))) == 140


def test_other_concatenations_are_split_on_demand():
    flux, layers = graph_of(published.FLUX), layers_of(published.FLUX)
    assert split_inputs(flux, layers, "shortcuts") == {}
    found = split_inputs(flux, layers, "concatenations")
    assert [name for name in found if name.startswith("single_transformer_blocks.")]


def test_a_quantized_layer_gets_its_structures():
    found = FoundStructures({"k": {"constant": torch.zeros(1, 4)}}, {"shortcut": 8})
    packed = Choice("int4/channel", "int8/token")
    assert found.applied("k", packed).structures == (ConstantTokens(1),)
    assert found.applied("shortcut", packed).structures == (SplitInput(8),)
    assert found.applied("other", packed) == packed


def test_a_floating_layer_needs_none():
    found = FoundStructures({"k": {"constant": torch.zeros(1, 4)}}, {"shortcut": 8})
    assert found.applied("k", Choice()) == found.applied("shortcut", Choice()) == Choice()
