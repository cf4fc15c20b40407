"""Attention layers of denoisers that are computed by our function, and by torch's again."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.models import attention_processor
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    attention_backend,
    dispatch_attention_fn,
)
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor,
    AttnProcessor2_0,
    XFormersAttnProcessor,
)
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from mezzotint.models import example_call
from mezzotint.plan import Plan, SimulatedAttention, uniform_plan
from mezzotint.runtime import (
    dequantize_module,
    has_fast_attention,
    packed_copy,
    use_fast_attention,
)
from mezzotint.runtime.attention import function
from mezzotint.runtime.attention.call import AttentionCall
from mezzotint.runtime.attention.fused import units
from mezzotint.runtime.attention.ways import WAYS
from tests.models import tiny


def tiny_flux() -> FluxTransformer2DModel:
    torch.manual_seed(0)
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
    )


DENOISERS = {"unet": tiny.smallest_unet, "pixart": tiny.tiny_pixart, "flux": tiny_flux}


@pytest.fixture(params=DENOISERS, scope="module")
def denoiser(request: pytest.FixtureRequest) -> nn.Module:
    return DENOISERS[request.param]().eval()


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[AttentionCall]]:
    """The calls that our function has computed: all that it may, however few the scores."""
    calls: list[AttentionCall] = []

    def way(_: object, call: AttentionCall) -> str:
        calls.append(call)
        return "blocks"

    monkeypatch.setattr(function, "FEW", 0)
    monkeypatch.setattr(function.Times, "way", way)
    return calls


def packed(denoiser: nn.Module) -> nn.Module:
    return packed_copy(denoiser, uniform_plan(denoiser, weight_bits=8, act_bits=16))


def arguments(denoiser: nn.Module) -> dict[str, object]:
    torch.manual_seed(0)

    def filled(value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        return torch.randn(value.shape) if value.is_floating_point() else value.fill_(500)

    if isinstance(denoiser, FluxTransformer2DModel):  # of whose example there are 4,096 tokens
        return {
            "hidden_states": torch.randn(1, 16, 4),
            "encoder_hidden_states": torch.randn(1, 8, 32),
            "pooled_projections": torch.randn(1, 32),
            "timestep": torch.tensor([0.5]),
            "img_ids": torch.zeros(16, 3),
            "txt_ids": torch.zeros(8, 3),
        }
    return {name: filled(value) for name, value in example_call(denoiser).kwargs.items()}


@torch.no_grad()
def output(denoiser: nn.Module) -> Tensor:
    return denoiser(**arguments(denoiser)).sample


def layers(denoiser: nn.Module) -> list[nn.Module]:
    return [each for each in denoiser.modules() if hasattr(each, "set_processor")]


def test_packed_denoisers_compute_by_it_from_the_start(denoiser, ours):
    fast = packed(denoiser)
    assert has_fast_attention(fast)
    found = output(fast)
    assert len(ours) == len(layers(denoiser))
    use_fast_attention(fast, enabled=False)
    torch.testing.assert_close(found, output(fast), rtol=0, atol=2e-6)


def test_packing_leaves_the_floating_one_alone(denoiser, ours):
    packed(denoiser)
    output(denoiser)
    assert not has_fast_attention(denoiser)
    assert not ours


def test_floating_ones_do_when_asked_and_no_longer_when_asked_again(denoiser, ours):
    fast = copy.deepcopy(denoiser)
    use_fast_attention(fast)
    use_fast_attention(fast)  # asked twice
    found = output(fast)
    assert len(ours) == len(layers(denoiser))
    torch.testing.assert_close(found, output(denoiser), rtol=0, atol=2e-6)
    ours.clear()
    use_fast_attention(fast, enabled=False)
    assert torch.equal(output(fast), output(denoiser))
    assert not ours
    stock = [type(each.processor) for each in layers(denoiser)]
    assert [type(each.processor) for each in layers(fast)] == stock


def test_a_plan_that_quantizes_nothing_changes_nothing(denoiser):
    assert not has_fast_attention(packed_copy(denoiser, Plan({})))


def test_dequantized_ones_are_torchs_again(denoiser):
    assert not has_fast_attention(dequantize_module(packed(denoiser)))


def test_copies_and_pickles_do_as_well(denoiser, ours):
    fast = packed(denoiser)
    expected = output(fast)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        ours.clear()
        assert torch.equal(output(other), expected)
        assert len(ours) == len(layers(denoiser))


def test_gradients_are_torchs(denoiser, ours):
    fast, stock = copy.deepcopy(denoiser), copy.deepcopy(denoiser)
    use_fast_attention(fast)
    found = []
    for each in (fast, stock):
        each.requires_grad_(True)
        each(**arguments(each)).sample.square().sum().backward()
        found.append([p.grad for p in each.parameters()])
    assert not ours
    pairs = zip(*found, strict=True)
    assert all(one is other is None or torch.equal(one, other) for one, other in pairs)


def test_rounded_attention_is_rounded(denoiser, ours):
    plan = uniform_plan(denoiser, weight_bits=8, act_bits=16)
    plan = Plan(plan.choices, simulated_attention=SimulatedAttention(softmax=8))
    fast = packed_copy(denoiser, plan)
    found = output(fast)
    assert not ours
    use_fast_attention(fast, enabled=False)
    assert torch.equal(found, output(fast))
    assert not torch.equal(found, output(packed(denoiser)))


@pytest.mark.thorough
def test_compiled_ones_are_torchs_in_one_graph(denoiser, ours):
    torch.compiler.reset()
    fast = copy.deepcopy(denoiser)
    use_fast_attention(fast)
    with torch.no_grad():
        compiled = torch.compile(fast, backend="eager", fullgraph=True)
        found = compiled(**arguments(denoiser)).sample
    assert torch.equal(found, output(denoiser))
    assert not ours


def test_files_do_not_tell(denoiser, tmp_path: Path):
    fast = copy.deepcopy(denoiser)
    use_fast_attention(fast)
    denoiser.save_pretrained(tmp_path / "stock")
    fast.save_pretrained(tmp_path / "fast")
    names = sorted(each.name for each in (tmp_path / "stock").iterdir())
    assert names == sorted(each.name for each in (tmp_path / "fast").iterdir())
    for name in names:
        assert (tmp_path / "stock" / name).read_bytes() == (tmp_path / "fast" / name).read_bytes()
    assert not has_fast_attention(type(denoiser).from_pretrained(tmp_path / "fast"))


def attention_layer(processor: object) -> Attention:
    return Attention(query_dim=8, heads=2, dim_head=4, processor=processor)


def test_a_compiled_layer_is_torchs_in_one_graph(ours):
    torch.compiler.reset()
    torch.manual_seed(0)
    stock, x = attention_layer(AttnProcessor2_0()), torch.randn(1, 9, 8)
    fast = copy.deepcopy(stock)
    use_fast_attention(fast)
    with torch.no_grad():
        assert torch.equal(torch.compile(fast, backend="eager", fullgraph=True)(x), stock(x))
    assert not ours


class Remembering(AttnProcessor2_0):
    """A processor of a user's, with a value of its own."""

    def __init__(self, value: int) -> None:
        super().__init__()
        self.value = value

    def __call__(self, attn, hidden_states, *, doubled=1, **kwargs):
        return super().__call__(attn, hidden_states, **kwargs) * doubled


def test_processors_stay_of_their_class_with_their_arguments():
    layer = attention_layer(AttnProcessor2_0())
    use_fast_attention(layer)
    assert isinstance(layer.processor, AttnProcessor2_0)
    assert type(layer.processor) is not AttnProcessor2_0
    stock = inspect.signature(AttnProcessor2_0().__call__)
    assert inspect.signature(layer.processor.__call__) == stock
    assert type(type(layer.processor)()) is type(layer.processor)


@pytest.mark.parametrize(
    "processor", [AttnProcessor(), XFormersAttnProcessor(), Remembering(3)], ids=type
)
def test_processors_that_call_other_functions_are_left_alone(processor):
    layer = attention_layer(processor)
    use_fast_attention(layer)
    assert layer.processor is processor
    assert not has_fast_attention(layer)


def test_every_processor_of_diffusers_that_calls_torchs_function_has_a_fast_class():
    kinds = [
        kind
        for kind in vars(attention_processor).values()
        if isinstance(kind, type) and "__call__" in vars(kind)
    ]
    calling = [
        kind
        for kind in kinds
        if "scaled_dot_product_attention" in vars(kind)["__call__"].__code__.co_names
    ]
    assert len(calling) > 20
    for kind in calling:
        layer, processor = nn.Module(), kind.__new__(kind)
        if isinstance(processor, nn.Module):
            nn.Module.__init__(processor)
        layer.processor = processor
        layer.set_processor = functools.partial(setattr, layer, "processor")
        use_fast_attention(layer)
        assert has_fast_attention(layer), kind


def test_a_processor_is_shared_no_longer_by_who_computes_otherwise():
    processor = AttnProcessor2_0()
    processor.note = "kept"
    one, other = attention_layer(processor), attention_layer(processor)
    use_fast_attention(one)
    assert other.processor is processor
    assert one.processor.note == "kept"
    assert not has_fast_attention(other)


def test_backends_of_other_libraries_are_left_alone():
    flux = tiny_flux()
    for each in layers(flux):
        each.processor._attention_backend = AttentionBackendName.FLASH
    use_fast_attention(flux)
    assert {each.processor._attention_backend for each in layers(flux)} == {
        AttentionBackendName.FLASH
    }


def test_diffusers_has_it_among_its_backends(ours):
    query, key, value = (torch.randn(2, 50, 3, 16) for _ in range(3))
    with attention_backend("mezzotint"):
        found = dispatch_attention_fn(query, key, value)
    assert len(ours) == 1
    turned = (each.transpose(1, 2) for each in (query, key, value))
    expected = scaled_dot_product_attention(*turned).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_every_way_gives_a_denoiser_the_same_output(denoiser, monkeypatch):
    fast = packed(denoiser)
    expected = output(fast)
    monkeypatch.setattr(function, "FEW", 0)
    for name in [name for name in WAYS if units() or name != "fused"]:
        monkeypatch.setattr(function.Times, "way", lambda *_, name=name: name)
        torch.testing.assert_close(output(fast), expected, rtol=0, atol=2e-6)
