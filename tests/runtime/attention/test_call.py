"""Calls that are ours to compute, and those that are left to torch."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from mezzotint.runtime.attention import attention, attention_of_tokens, function
from mezzotint.runtime.attention.call import plain_call
from tests.runtime.attention.operands import KINDS, call_arguments

KIND = KINDS["self"]
QUERY, KEY, VALUE = KIND.operands(torch.float32)


def is_ours(query=QUERY, key=KEY, value=VALUE, **options) -> bool:
    return plain_call(query, key, value, *call_arguments(options)) is not None


def test_plain_tensors_are_ours():
    assert is_ours()
    assert is_ours(nn.Parameter(QUERY, requires_grad=False))


def test_what_needs_gradients_is_torchs():
    query = QUERY.clone().requires_grad_()
    assert not is_ours(query)
    assert not is_ours(attn_mask=torch.zeros(200, 200, requires_grad=True))
    with torch.no_grad():
        assert is_ours(query)
    with torch.inference_mode():
        assert is_ours(query)


def test_forward_gradients_are_torchs():
    with torch.autograd.forward_ad.dual_level():
        assert not is_ours()


def test_mapped_calls_are_torchs():
    seen = []

    def watched(query):
        seen.append(is_ours(query))
        return query

    torch.func.vmap(watched)(QUERY[None])
    assert seen == [False]


@pytest.mark.parametrize("mode", [TorchFunctionMode, TorchDispatchMode])
def test_what_a_mode_follows_is_torchs(mode):
    class Mode(mode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

        __torch_dispatch__ = __torch_function__

    with Mode():
        assert not is_ours()
    assert is_ours()


def test_tensors_of_other_classes_are_torchs():
    class Other(torch.Tensor):
        pass

    assert not is_ours(QUERY.as_subclass(Other))


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
def test_traced_calls_are_torchs():
    seen = []

    def traced(query):
        seen.append(is_ours(query))
        return query * 1

    torch.jit.trace(traced, (QUERY,), check_trace=False)
    assert seen == [False]


def test_meta_tensors_are_torchs():
    assert not is_ours(*(each.to("meta") for each in (QUERY, KEY, VALUE)))


@pytest.mark.parametrize(
    ("operands", "options"),
    [
        ((QUERY.double(), KEY.double(), VALUE.double()), {}),
        ((QUERY, KEY[:, :1], VALUE[:, :1]), {}),
        ((QUERY[0], KEY[0], VALUE[0]), {}),
        ((QUERY[:, :, :0], KEY, VALUE), {}),
        ((QUERY, KEY[:, :, :0], VALUE[:, :, :0]), {}),
        ((QUERY, KEY.expand(2, -1, -1, -1), VALUE.expand(2, -1, -1, -1)), {}),
        ((QUERY, KEY, VALUE), {"attn_mask": torch.ones(200, 200), "is_causal": True}),
    ],
    ids=[
        *("float64", "broadcast heads", "without batch", "no query", "no key", "broadcast batch"),
        "mask and causal",
    ],
)
def test_all_that_torch_takes_beyond_that_it_computes(operands, options):
    assert not is_ours(*operands, **options)
    expected = scaled_dot_product_attention(*operands, **options)
    assert torch.equal(attention(*operands, **options), expected)


@pytest.mark.parametrize(
    ("operands", "options"),
    [
        ((QUERY, KEY.bfloat16(), VALUE), {}),
        ((QUERY, KEY[..., :7], VALUE), {}),
        ((QUERY, KEY, VALUE), {"attn_mask": torch.ones(9, 9)}),
    ],
    ids=["dtypes", "features", "mask"],
)
def test_what_torch_refuses_it_refuses(operands, options):
    assert not is_ours(*operands, **options)
    with pytest.raises((RuntimeError, ValueError)):
        attention(*operands, **options)


def test_dropout_is_torchs(monkeypatch):
    monkeypatch.setattr(function, "plain_call", None)
    torch.manual_seed(0)
    expected = scaled_dot_product_attention(QUERY, KEY, VALUE, dropout_p=0.5)
    torch.manual_seed(0)
    assert torch.equal(attention(QUERY, KEY, VALUE, dropout_p=0.5), expected)


def test_few_scores_are_torchs_without_a_further_look(monkeypatch):
    monkeypatch.setattr(function, "plain_call", None)
    few = [each[:, :, :100] for each in (QUERY, KEY, VALUE)]
    assert torch.equal(attention(*few), scaled_dot_product_attention(*few))


@pytest.mark.parametrize("masked", [False, True])
def test_tokens_may_stand_before_heads(masked):
    operands = [torch.randn(2, 7, 3, 4) for _ in range(3)]
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3]) if masked else None
    found = attention_of_tokens(*operands, attn_mask=mask)
    query, key, value = (each.transpose(1, 2) for each in operands)
    wide = None if mask is None else mask[:, None, None]
    expected = scaled_dot_product_attention(query, key, value, attn_mask=wide)
    assert torch.equal(found, expected.transpose(1, 2))
