"""Models that look at their layers, or call them by keyword, under the openvino engine."""

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional

import mezzotint as mz
from mezzotint.engines import engine_named
from mezzotint.evaluation import sqnr

#: Only the order of floating sums differs.
FLOAT_DB = 80.0


class ByKeyword(nn.Module):
    """A Linear and a Conv2d that are given their input by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 6)
        self.conv = nn.Conv2d(6, 5, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(input=x).movedim(-1, 1)
        return self.conv(input=y)


class ByDtype(ByKeyword):
    """Casts inputs to the dtype of a layer's weight, and of its first parameter."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x.to(self.linear.weight.dtype)).movedim(-1, 1)
        return self.conv(y.to(next(self.linear.parameters()).dtype))


class ByAttribute(ByKeyword):
    """Reads sizes and geometry, classes, and the values of weight and bias."""

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.linear, nn.Linear)
        assert isinstance(self.conv, nn.Conv2d)
        y = self.linear(x[..., : self.linear.in_features]) / self.linear.out_features
        y = self.conv(y.movedim(-1, 1)[:, : self.conv.in_channels]) * self.conv.stride[0]
        assert self.conv.bias is None
        return y.mean((1, 2, 3))[:, None] * functional.linear(
            torch.ones(len(x), 8), self.linear.weight * 2, self.linear.bias
        )


def agreement(module: nn.Module, **inputs: Tensor) -> float:
    """SQNR in dB of the packed module's output under openvino, where torch's is the signal."""
    packed = mz.quantize_denoiser(module, weight_bits=4)
    served = engine_named("openvino").attach(packed)
    with torch.no_grad():
        expected, found = packed(**inputs), served(**inputs)
    if not isinstance(expected, Tensor):
        assert type(found) is type(expected)
        expected, found = expected.sample, found.sample
    assert found.shape == expected.shape
    return float(sqnr(expected, found).min())


@pytest.mark.parametrize("kind", [ByKeyword, ByDtype, ByAttribute])
def test_a_packed_layer_answers_as_in_torch(kind: type[nn.Module]):
    torch.manual_seed(0)
    assert agreement(kind(), x=torch.randn(2, 7, 7, 8)) > FLOAT_DB


def test_the_packed_layers_are_left_alone():
    module = mz.quantize_denoiser(ByDtype().bfloat16(), weight_bits=4)
    served = engine_named("openvino").attach(module)
    served(torch.randn(2, 7, 7, 8))
    assert module.linear.bias.dtype == module.linear.weight.dtype == torch.bfloat16


def test_wan_agrees_with_torch():
    torch.manual_seed(0)
    wan = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=8,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    ).eval()
    found = agreement(
        wan,
        hidden_states=torch.randn(1, 4, 3, 8, 8),
        timestep=torch.tensor([500]),
        encoder_hidden_states=torch.randn(1, 5, 8),
    )
    assert found > FLOAT_DB
