"""Layers of structures, packed alone, and what they should put out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from mezzotint.formats import MINMAX, as_bits
from mezzotint.plan import Choice, Encoding, Plan
from mezzotint.runtime import (
    Calibration,
    ConstantTokens,
    InputRange,
    PackedLayer,
    Smoothing,
    SplitInput,
    StructuredLayer,
    pack_layer,
    part_inputs,
    shape_of,
    structure_tensors,
)
from tests.runtime.layers import ACTIVATIONS, conv, linear, noise

WIDTHS = range(1, 9)
RANGES = (InputRange(-4.0, 4.0), InputRange(-3.0, 2.0))

weights = st.builds(
    lambda kind, width, granularity: f"{kind}int{width}/{granularity}",
    st.sampled_from(["", "u"]),
    st.sampled_from(WIDTHS),
    st.sampled_from(["tensor", "channel", "group4"]),
)
activations = st.sampled_from(ACTIVATIONS)
dtypes = st.sampled_from([torch.float32, torch.bfloat16])
sizes = st.integers(1, 21)


def constants(choice: Choice, layer: nn.Module) -> dict[str, Tensor]:
    """Constants and exponents drawn at random for every place that needs some; known tokens."""
    specs = structure_tensors(choice.structures, shape_of(layer))
    found = {}
    for name, spec in specs.items():
        values = noise(*spec.shape, seed=3)
        if name.endswith("constant"):
            found[name] = as_bits(values)
        elif name.endswith("known_input"):
            found[name] = as_bits(known_tokens(*spec.shape))
        elif name.endswith("exponent"):
            found[name] = values.mul(2).round().to(torch.int8)
    return found


def known_tokens(count: int, features: int) -> Tensor:
    """First tokens that the constants are outputs of, bfloat16."""
    return noise(count, features, seed=4).bfloat16()


def text(*shape: int, count: int = 1) -> Tensor:
    """Noise [batch, tokens, features] that begins with the known tokens."""
    x = noise(*shape)
    x[:, :count] = known_tokens(count, shape[-1])[: shape[1]].float()
    return x


def packed(layer: nn.Linear | nn.Conv2d, choice: Choice) -> PackedLayer:
    """`layer` packed alone; its constants and exponents are drawn at random."""
    ranges = RANGES[: choice.parts]
    plan = Plan({"0": choice}, encoding=Encoding(MINMAX))
    calibration = Calibration({"0": ranges}, {"0": constants(choice, layer)})
    return pack_layer("0", layer, plan, calibration)


def reference(layer: StructuredLayer, x: Tensor) -> Tensor:
    """The float computation on the decoded weight and the rounded parts of the input."""
    parts = part_inputs(x, layer.choice.structures, layer.shape, layer.state_dict())
    rounded = [part.round_input(x) for part, x in zip(layer.parts, parts, strict=True)]
    return layer.to_float().float()(torch.cat(rounded, layer.shape.channel_dim).float())


def assert_close(output: Tensor, exact: Tensor) -> None:
    loose = output.dtype == torch.bfloat16
    peak = float(exact.abs().max()) if exact.numel() else 0.0
    tolerance = (0.03 if loose else 1e-5) * max(peak, 1.0)
    assert torch.allclose(output.float(), exact, rtol=0.02 if loose else 1e-4, atol=tolerance)


TEXT = Choice("int4/channel", "int8/token", (ConstantTokens(1),))
SPLIT = Choice("int4/channel", "int8/token", (SplitInput(2),))
BOTH = Choice("int4/channel", "int8/token", (ConstantTokens(1), SplitInput(2)))
SMOOTHED = Choice("int4/channel", "int8/token", (Smoothing(),))
DEEP = Choice("int4/channel", "int8/token", (ConstantTokens(1), SplitInput(2), Smoothing()))
TEXT_LAYER = (linear(), TEXT, text(2, 5, 19))
SPLIT_LINEAR = (linear(), SPLIT, noise(2, 5, 19))
SPLIT_CONV = (conv(padding=1), SPLIT, noise(2, 4, 6, 6))
BOTH_LAYER = (linear(), BOTH, text(2, 5, 19))
SMOOTHED_LINEAR = (linear(), SMOOTHED, noise(2, 5, 19))
SMOOTHED_CONV = (conv(padding=1, groups=2), SMOOTHED, noise(2, 4, 6, 6))
DEEP_LAYER = (linear(), DEEP, text(2, 5, 19))
EVERY = pytest.mark.parametrize(
    ("layer", "choice", "x"),
    [
        TEXT_LAYER,
        SPLIT_LINEAR,
        SPLIT_CONV,
        BOTH_LAYER,
        SMOOTHED_LINEAR,
        SMOOTHED_CONV,
        DEEP_LAYER,
    ],
    ids=[
        "constant tokens",
        "split linear",
        "split conv2d",
        "split within constant tokens",
        "smoothed linear",
        "smoothed conv2d in groups",
        "smoothed split within constant tokens",
    ],
)
