"""Attention in C: the same on every vector unit and for any number of threads."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.runtime.attention import fused
from mezzotint.runtime.attention.call import AttentionCall, plain_call
from mezzotint.runtime.attention.fused import Unit, attend_fused, unit_for, units
from mezzotint.runtime.attention.ways import candidates
from tests.runtime.attention.operands import KINDS, TOLERANCE, Kind, call_arguments, error, exact

pytestmark = pytest.mark.skipif(not units(), reason="built without the C functions")

UNITS = pytest.mark.parametrize("unit", units(), ids=lambda unit: unit.name)
KINDS_OF_CALLS = pytest.mark.parametrize("name", KINDS)


def call_of(kind: Kind, dtype: torch.dtype) -> AttentionCall:
    call = plain_call(*kind.operands(dtype), *call_arguments(kind.options))
    assert call is not None
    return call


@UNITS
@KINDS_OF_CALLS
def test_each_unit_is_as_exact_as_bfloat16_allows(unit, name):
    kind, dtype = KINDS[name], torch.bfloat16
    expected = exact(kind.operands(dtype), kind.options)
    # Nothing but probabilities and the output is rounded: less than half of what is allowed.
    assert error(attend_fused(call_of(kind, dtype), unit), expected) < TOLERANCE[dtype] / 2


@pytest.mark.parametrize(
    "unit", [unit for unit in units() if unit != Unit.AVX512_BF16], ids=lambda unit: unit.name
)
@KINDS_OF_CALLS
def test_each_unit_is_as_exact_as_float32_allows(unit, name):
    kind, dtype = KINDS[name], torch.float32
    expected = exact(kind.operands(dtype), kind.options)
    assert error(attend_fused(call_of(kind, dtype), unit), expected) < TOLERANCE[dtype] / 2


@given(
    queries=st.integers(1, 200),
    keys=st.integers(1, 600),
    features=st.integers(1, 140),
    values=st.integers(1, 140),
    causal=st.booleans(),
    dtype=st.sampled_from([torch.bfloat16, torch.float32]),
)
def test_any_shape_is_exact(queries, keys, features, values, causal, dtype):
    kind = Kind((1, 1, queries, features), (1, keys, values), {"is_causal": causal})
    call, expected = call_of(kind, dtype), exact(kind.operands(dtype), kind.options)
    # By the size of the values: those of a single query may cancel each other out.
    difference = (attend_fused(call).double() - expected).square().mean().sqrt()
    assert difference < TOLERANCE[dtype] * call.value.double().square().mean().sqrt()


def test_scores_far_apart_neither_overflow_nor_vanish():
    kind = Kind((1, 1, 100, 64), (1, 1100, 64), spread=1e4)
    expected = exact(kind.operands(torch.float32), {})
    # Scores of tens of thousands are themselves exact to a thousandth.
    assert error(attend_fused(call_of(kind, torch.float32)), expected) < 1e-3


def test_bfloat16_products_are_of_bfloat16_alone():
    assert unit_for(torch.float32) != Unit.AVX512_BF16
    assert unit_for(torch.float16) != Unit.AVX512_BF16
    assert unit_for(torch.bfloat16) == units()[-1]


def test_a_person_is_told_the_units(monkeypatch):
    monkeypatch.setattr(fused, "units", lambda: (Unit.AVX2, Unit.AVX512, Unit.AVX512_BF16))
    assert fused.units_text() == "AVX512_BF16 for bfloat16, AVX512 for float32"
    monkeypatch.setattr(fused, "units", lambda: (Unit.AVX2,))
    assert fused.units_text() == "AVX2 for bfloat16, AVX2 for float32"
    monkeypatch.setattr(fused, "units", lambda: ())
    assert fused.units_text() == "torch's own functions"


def test_it_is_a_candidate_for_every_dtype():
    for dtype in TOLERANCE:
        assert "fused" in candidates(call_of(KINDS["self"], dtype))


@UNITS
@KINDS_OF_CALLS
def test_any_number_of_threads_gives_the_same_bits(unit, name):
    call, before = call_of(KINDS[name], torch.bfloat16), torch.get_num_threads()
    expected = attend_fused(call, unit)
    try:
        for threads in (2, 5):
            torch.set_num_threads(threads)
            assert torch.equal(attend_fused(call, unit), expected)
    finally:
        torch.set_num_threads(before)


@KINDS_OF_CALLS
def test_few_heads_at_a_time_give_the_same_bits(name, monkeypatch):
    call = call_of(KINDS[name], torch.bfloat16)
    expected = attend_fused(call)
    monkeypatch.setattr(fused, "_PANEL_BYTES", 1)
    assert torch.equal(attend_fused(call), expected)


def test_a_query_is_computed_alike_beside_others():
    query, key, value = KINDS["long"].operands(torch.bfloat16)
    one = plain_call(query[:, :, :1], key, value, None, False, None, False)
    all_ = plain_call(query, key, value, None, False, None, False)
    assert one is not None
    assert all_ is not None
    assert torch.equal(attend_fused(one), attend_fused(all_)[:, :, :1])


def test_nothing_beside_the_output_is_written():
    """Also where the last vectors are not full."""
    call = call_of(KINDS["odd features"], torch.float32)
    memory = torch.full((9 + 100 * 23 + 9,), 7.0)
    inside = memory[9:-9].view(1, 100, 1, 23).transpose(1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AttentionCall, "empty_output", lambda self: inside)
        found = attend_fused(call)
    assert found is inside
    assert memory[:9].eq(7).all()
    assert memory[-9:].eq(7).all()
    assert error(found, exact(KINDS["odd features"].operands(torch.float32), {})) < 1e-5


def test_threads_of_python_compute_at_the_same_time():
    calls = [call_of(KINDS[name], torch.bfloat16) for name in ("self", "text", "causal")]
    expected = [attend_fused(call) for call in calls]
    start = threading.Barrier(3)

    def many(index: int) -> bool:
        start.wait(30)
        return all(torch.equal(attend_fused(calls[index]), expected[index]) for _ in range(20))

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(many, range(3)))


def _child(found) -> None:
    found.put(attend_fused(call_of(KINDS["self"], torch.bfloat16)).float().numpy().tobytes())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_computes_as_well():
    expected = attend_fused(call_of(KINDS["self"], torch.bfloat16)).float().numpy().tobytes()
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    child = context.Process(target=_child, args=(found,))
    child.start()
    try:
        assert found.get(timeout=60) == expected
    finally:
        child.join(60)
