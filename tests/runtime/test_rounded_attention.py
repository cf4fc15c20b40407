"""Attention whose operands are rounded, in whatever denoiser calls torch's attention."""

from __future__ import annotations

import copy
import functools
import math
import pickle
from types import SimpleNamespace

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from diffusers.models.attention_processor import AttnProcessor, XFormersAttnProcessor
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from mezzotint.errors import UsageError
from mezzotint.models import example_call
from mezzotint.plan import Plan, SimulatedAttention
from mezzotint.runtime import (
    dequantize_module,
    packed_copy,
    round_attention,
    rounded_attention,
)
from mezzotint.runtime.rounded_attention import attention_of_rounded
from tests.models import tiny

OPERANDS = ("q", "k", "v", "softmax")
SOFTMAX = SimulatedAttention(softmax=8)
DENOISERS = {"unet": tiny.smallest_unet, "transformer": tiny.tiny_pixart}


@pytest.fixture(params=DENOISERS, scope="module")
def denoiser(request: pytest.FixtureRequest) -> nn.Module:
    return DENOISERS[request.param]().eval()


@torch.no_grad()
def output(denoiser: nn.Module, attention: SimulatedAttention | None = None) -> torch.Tensor:
    if attention is not None:
        denoiser = packed_copy(denoiser, Plan({}, simulated_attention=attention))
    call = example_call(denoiser)
    torch.manual_seed(0)

    def filled(value):
        if not isinstance(value, torch.Tensor):
            return value
        if not value.is_floating_point():
            return torch.full(value.shape, 500)
        return torch.randn(value.shape)

    kwargs = {name: filled(value) for name, value in call.kwargs.items()}
    return denoiser(**kwargs).sample


@pytest.mark.parametrize("operand", OPERANDS)
def test_each_operand_changes_the_output_by_itself(denoiser, operand):
    exact = output(denoiser)
    at_8, at_6 = (output(denoiser, SimulatedAttention(**{operand: bits})) for bits in (8, 6))
    errors = [float((each - exact).square().mean()) for each in (at_8, at_6)]
    assert 0 < errors[0] < errors[1]


def test_the_original_computes_as_before(denoiser):
    before = output(denoiser)
    output(denoiser, SOFTMAX)
    assert torch.equal(output(denoiser), before)
    assert rounded_attention(denoiser) is None


def test_copies_and_pickles_round_as_well(denoiser):
    packed = packed_copy(denoiser, Plan({}, simulated_attention=SOFTMAX))
    expected = output(packed)
    assert not torch.equal(expected, output(denoiser))
    for other in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        assert rounded_attention(other) == SOFTMAX
        assert torch.equal(output(other), expected)


def test_a_copy_computes_with_its_own_weights(denoiser):
    packed = packed_copy(denoiser, Plan({}, simulated_attention=SOFTMAX))
    other = copy.deepcopy(packed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    assert not torch.equal(output(other), output(packed))


def test_a_dequantized_denoiser_rounds_nothing(denoiser):
    packed = packed_copy(denoiser, Plan({}, simulated_attention=SOFTMAX))
    assert torch.equal(output(dequantize_module(packed)), output(denoiser))
    assert "forward" not in vars(packed)


def test_what_others_put_around_it_is_left_in_place(denoiser):
    """Offloading puts a forward method of its own on the instance."""
    packed = packed_copy(denoiser, Plan({}, simulated_attention=SOFTMAX))
    rounding, calls = packed.forward, []

    @functools.wraps(rounding)
    def around(*args, **kwargs):
        calls.append(args)
        return rounding(*args, **kwargs)

    packed.forward = around
    expected = output(denoiser, SimulatedAttention(q=8))
    round_attention(packed, SimulatedAttention(q=8))
    assert rounded_attention(packed) == SimulatedAttention(q=8)
    assert torch.equal(output(packed), expected)
    round_attention(packed, None)
    assert torch.equal(output(packed), output(denoiser))
    assert len(calls) == 2


def test_attention_outside_of_the_denoiser_is_left_alone(denoiser):
    """Also after a call that failed."""
    packed = packed_copy(denoiser, Plan({}, simulated_attention=SimulatedAttention(q=2)))
    query = torch.randn(1, 2, 5, 4)
    before = scaled_dot_product_attention(query, query, query)
    with pytest.raises(TypeError):
        packed()
    assert torch.equal(scaled_dot_product_attention(query, query, query), before)


CAUSAL = torch.ones(5, 7, dtype=torch.bool).tril()
CALLS = {
    "plain": {},
    "scaled": {"scale": 0.3},
    "causal": {"is_causal": True},
    "mask": {"attn_mask": CAUSAL},
    "added mask": {"attn_mask": torch.zeros(5, 7).masked_fill(~CAUSAL, -math.inf)},
    "query without keys": {"attn_mask": CAUSAL & (torch.arange(5) > 0)[:, None]},
    "shared heads": {"enable_gqa": True},
}


@pytest.mark.parametrize("options", CALLS.values(), ids=CALLS)
def test_but_for_rounding_it_is_torch_s_attention(options):
    torch.manual_seed(0)
    heads = 1 if "enable_gqa" in options else 2
    query, key, value = (
        torch.randn(3, 2, 5, 4),
        torch.randn(3, heads, 7, 4),
        torch.randn(3, heads, 7, 6),
    )
    expected = scaled_dot_product_attention(query, key, value, **options)
    found = attention_of_rounded(SOFTMAX, query, key, value, **options)
    assert found.shape == expected.shape
    # Probabilities are wrong by half a step of 1/255 at the most, and each row has seven of them.
    assert float((found - expected).abs().max()) <= 7 * float(value.abs().max()) / 510 + 1e-6


def test_each_row_has_a_scale_of_its_own():
    """A large token takes nothing away from the others."""
    query, value = torch.randn(1, 4, 8), torch.randn(1, 4, 8)
    large = value.clone()
    large[:, 0] *= 1e4
    mask = torch.eye(4, dtype=torch.bool)  # each query attends to one key alone
    found = attention_of_rounded(SimulatedAttention(v=8), query, query, large, mask)
    alone = attention_of_rounded(SimulatedAttention(v=8), query, query, value, mask)
    assert torch.equal(found[:, 1:], alone[:, 1:])


def test_half_precision_stays_half_precision():
    query = torch.randn(1, 2, 5, 4, dtype=torch.bfloat16)
    assert attention_of_rounded(SOFTMAX, query, query, query).dtype == torch.bfloat16


@torch.library.custom_op("mezzotint_tests::flash_attn_fwd", mutates_args=())
def flash_attn_fwd(x: torch.Tensor) -> torch.Tensor:
    """Attention of a library that torch knows nothing of."""
    return x.clone()


class Dispatched(nn.Module):
    """A model whose processor leaves attention to a backend of diffusers."""

    def __init__(self, backend: object) -> None:
        super().__init__()
        self.attn = nn.Module()
        self.attn.processor = SimpleNamespace(_attention_backend=backend)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


class TestRefusals:
    def test_attention_that_is_written_out(self):
        unet = tiny.smallest_unet()
        unet.set_attn_processor(AttnProcessor())
        round_attention(unet, SOFTMAX)
        with pytest.raises(UsageError, match="AttnProcessor2_0"):
            output(unet)

    def test_one_module_among_others(self):
        unet = tiny.smallest_unet()
        processors = dict(unet.attn_processors)
        processors[next(iter(processors))] = AttnProcessor()
        unet.set_attn_processor(processors)
        round_attention(unet, SOFTMAX)
        with pytest.raises(UsageError, match="bmm"):
            output(unet)

    def test_processors_of_other_libraries_beside_torch_s(self):
        unet = tiny.smallest_unet()
        name = next(iter(unet.attn_processors))
        attention = unet.get_submodule(name.removesuffix(".processor"))
        attention.processor = XFormersAttnProcessor()
        round_attention(unet, SOFTMAX)
        with pytest.raises(UsageError, match="is computed by XFormersAttnProcessor and not"):
            output(unet)

    @pytest.mark.parametrize("backend", ["sage", "flex", "xformers"])
    def test_backends_of_diffusers(self, backend: str):
        model = Dispatched(backend)
        round_attention(model, SOFTMAX)
        with pytest.raises(UsageError, match=f"attn is computed by the backend '{backend}'"):
            model(torch.randn(1, 2, 5, 4))

    @pytest.mark.parametrize("backend", [None, "native", AttentionBackendName._NATIVE_MATH])
    def test_not_those_that_call_torch(self, backend: object):
        model = Dispatched(backend)
        round_attention(model, SOFTMAX)
        model(torch.randn(1, 2, 5, 4))

    def test_backends_of_a_context(self):
        model = Dispatched(None)
        round_attention(model, SOFTMAX)
        before = _AttentionBackendRegistry._active_backend
        try:
            _AttentionBackendRegistry.set_active_backend(AttentionBackendName.FLEX)
            with pytest.raises(UsageError, match="attn is computed by the backend 'flex'"):
                model(torch.randn(1, 2, 5, 4))
        finally:
            _AttentionBackendRegistry.set_active_backend(before)

    def test_operators_of_other_libraries(self):
        """Called by whom it may be."""

        class Both(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                y = nn.functional.scaled_dot_product_attention(x, x, x)
                return torch.ops.mezzotint_tests.flash_attn_fwd(y)

        model = Both()
        round_attention(model, SOFTMAX)
        with pytest.raises(UsageError, match="computed by mezzotint_tests::flash_attn_fwd and not"):
            model(torch.randn(1, 2, 5, 4))

    def test_torch_s_own_module(self):
        attention = nn.MultiheadAttention(8, 2)
        round_attention(attention, SOFTMAX)
        x = torch.randn(3, 1, 8)
        with pytest.raises(UsageError, match="multi_head_attention_forward"):
            attention(x, x, x)

    def test_a_denoiser_without_attention(self):
        linear = nn.Linear(4, 4)
        round_attention(linear, SOFTMAX)
        with pytest.raises(UsageError, match="Linear calls no scaled_dot_product_attention"):
            linear(torch.randn(1, 4))
