"""Every way of computing attention, against arithmetic in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from mezzotint.runtime.attention import ways
from mezzotint.runtime.attention.call import AttentionCall, plain_call
from mezzotint.runtime.attention.fused import units
from mezzotint.runtime.attention.ways import TORCH, WAYS, candidates
from mezzotint.runtime.cpu import processor
from tests.runtime.attention.operands import KINDS, TOLERANCE, call_arguments, error, exact

OURS = [name for name in WAYS if name != TORCH and (units() or name != "fused")]
OTHERS = pytest.mark.parametrize("way", OURS)
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda d: str(d).removeprefix("torch."))


def plain(kind, dtype) -> AttentionCall:
    call = plain_call(*kind.operands(dtype), *call_arguments(kind.options))
    assert call is not None
    return call


@OTHERS
@DTYPES
@pytest.mark.parametrize("name", KINDS)
def test_it_is_as_exact_as_its_dtype_allows(way, dtype, name):
    kind = KINDS[name]
    found = WAYS[way](plain(kind, dtype))
    expected = exact(kind.operands(dtype), kind.options)
    assert found.dtype == dtype
    assert found.shape == expected.shape
    assert error(found, expected) < TOLERANCE[dtype]


@DTYPES
def test_torchs_own_way_takes_the_same_calls(dtype):
    for kind in KINDS.values():
        expected = scaled_dot_product_attention(*kind.operands(dtype), **kind.options)
        assert error(WAYS[TORCH](plain(kind, dtype)), expected.double()) < TOLERANCE[dtype]


@OTHERS
@DTYPES
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("operand", ["query", "key", "value"])
@pytest.mark.parametrize("name", ["self", "mask of keys", "causal"])
def test_nan_and_infinity_go_where_arithmetic_has_them(way, dtype, bad, operand, name):
    kind = KINDS[name]
    operands = dict(zip(("query", "key", "value"), kind.operands(dtype), strict=True))
    operands[operand][0, 0, 0, 0] = bad
    call = plain_call(*operands.values(), *call_arguments(kind.options))
    assert call is not None
    expected = exact(tuple(operands.values()), kind.options)
    assert torch.equal(WAYS[way](call).isfinite(), expected.isfinite())


@OTHERS
@DTYPES
def test_an_added_mask_of_the_querys_dtype_is_taken(way, dtype):
    kind = KINDS["added"]
    mask = kind.options["attn_mask"].to(dtype)
    call = plain_call(*kind.operands(dtype), mask, False, None, False)
    assert call is not None
    expected = exact(kind.operands(dtype), {"attn_mask": mask})
    assert error(WAYS[way](call), expected) < TOLERANCE[dtype]


@OTHERS
@DTYPES
def test_the_heads_of_a_query_stand_together(way, dtype):
    """So that the projection behind it need not copy them."""
    found = WAYS[way](plain(KINDS["self"], dtype))
    assert found.transpose(1, 2).is_contiguous()


@OTHERS
@DTYPES
def test_operands_are_left_as_they_are(way, dtype):
    kind = KINDS["mask of keys"]
    call = plain(kind, dtype)
    WAYS[way](call)
    for operand, expected in zip(
        (call.query, call.key, call.value), kind.operands(dtype), strict=True
    ):
        assert torch.equal(operand, expected)


@pytest.mark.parametrize("fast", [False, True])
def test_without_c_functions_blocks_serve_where_products_of_bfloat16_are_fast(monkeypatch, fast):
    monkeypatch.setattr(ways, "unit_for", lambda dtype: None)
    monkeypatch.setattr(processor, "BFLOAT16", fast)
    found = candidates(plain(KINDS["self"], torch.bfloat16))
    assert found == ((TORCH, "blocks") if fast else (TORCH,))
    assert candidates(plain(KINDS["self"], torch.float32)) == (TORCH,)
