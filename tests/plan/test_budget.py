import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.errors import BudgetError, MezzotintError, UsageError
from mezzotint.plan import Budget, parse_latency, parse_size


class TestSizes:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("7000000", 7_000_000),
            ("12B", 12),
            ("6MB", 6_000_000),
            ("6 MB", 6_000_000),
            (" 6mb ", 6_000_000),
            ("6MiB", 6 * 2**20),
            ("1.5GiB", 3 * 2**29),
            (".5KB", 500),
            ("2kib", 2048),
            ("1GB", 10**9),
        ],
    )
    def test_units_are_decimal_or_binary(self, text: str, expected: int):
        assert parse_size(text) == expected

    @given(count=st.integers(1, 2**53))
    def test_whole_bytes_are_exact(self, count: int):
        assert parse_size(str(count)) == parse_size(f"{count}B") == count

    @pytest.mark.parametrize(
        "text",
        [
            *(
                "",
                "MB",
                "six MB",
                "-6MB",
                "6M",
                "6TB",
                "6 M B",
                "1e6",
                "6,5MB",
                "1.2.3MB",
                "6MB of",
            ),
            *("nan", "inf", "٦MB", "0", "0MB", "0.4", "0.0004KB", "9" * 400),
        ],
    )
    def test_anything_else_is_refused_and_repeated(self, text: str):
        with pytest.raises(BudgetError) as caught:
            parse_size(text)
        assert repr(text) in str(caught.value)

    @given(text=st.text(max_size=12))
    def test_no_text_does_worse_than_a_budget_error(self, text: str):
        with contextlib.suppress(BudgetError):
            assert parse_size(text) >= 1


class TestBudget:
    def test_nothing_said_means_four_bits(self):
        assert Budget() == Budget(weight_bits=4.0, act_bits=8)

    def test_a_size_alone_leaves_the_bits_free(self):
        assert Budget(size="6MB").weight_bits is None

    def test_limits_hold_together(self):
        budget = Budget(weight_bits=3.5, size=5_000_000)
        assert (budget.weight_bits, budget.bytes) == (3.5, 5_000_000)

    @pytest.mark.parametrize(("size", "expected"), [("6MB", 6_000_000), (123, 123), (None, None)])
    def test_size_in_bytes(self, size: int | str | None, expected: int | None):
        assert Budget(size=size).bytes == expected

    @pytest.mark.parametrize("bits", [0, -1, 16.5, 32, math.nan, math.inf])
    def test_average_bits_lie_above_0_and_at_most_16(self, bits: float):
        with pytest.raises(BudgetError, match=f"weight_bits is {bits}"):
            Budget(weight_bits=bits)

    @pytest.mark.parametrize("size", [0, -5, "0MB", "six"])
    def test_a_size_is_positive(self, size: int | str):
        with pytest.raises(BudgetError, match=str(size)):
            Budget(size=size)

    @pytest.mark.parametrize("bits", [0, 1, 9, 32])
    def test_activation_widths_are_those_of_the_formats(self, bits: int):
        with pytest.raises(UsageError, match=f"act_bits is {bits}"):
            Budget(act_bits=bits)
        assert issubclass(UsageError, MezzotintError)


class TestLatencies:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("0.6x", (0.6, True)),
            (" 2 X ", (2.0, True)),
            ("35ms", (35.0, False)),
            (".5 MS", (0.5, False)),
            ("1.5s", (1500.0, False)),
        ],
    )
    def test_multiples_and_milliseconds(self, text: str, expected: tuple[float, bool]):
        assert parse_latency(text) == expected

    @pytest.mark.parametrize(
        "text", ["", "x", "35", "0x", "0ms", "-1ms", "1e3ms", "nan", "6%", "٦ms", "9" * 400 + "s"]
    )
    def test_anything_else_is_refused_and_repeated(self, text: str):
        with pytest.raises(BudgetError) as caught:
            Budget(latency=text)
        assert repr(text) in str(caught.value)

    @given(text=st.text(max_size=12))
    def test_no_text_does_worse_than_a_budget_error(self, text: str):
        with contextlib.suppress(BudgetError):
            assert parse_latency(text)[0] > 0

    def test_a_multiple_is_of_the_floating_denoisers_time(self):
        assert Budget(latency="0.5x").milliseconds(80.0) == 40
        assert Budget(latency="35ms").milliseconds(80.0) == 35
        assert Budget().milliseconds(80.0) is None

    def test_a_latency_alone_leaves_the_bits_free(self):
        assert Budget(latency="35ms").weight_bits is None
        assert not Budget(latency="35ms").limits_bytes
        assert Budget(latency="35ms", size="6MB").limits_bytes


class TestValues:
    @pytest.mark.parametrize("field", ["weight_bits", "size"])
    def test_a_huge_integer_is_out_of_range(self, field: str):
        with pytest.raises(BudgetError, match=f"{field} is 10000"):
            Budget(**{field: 10**400})

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("weight_bits", "4"),
            ("weight_bits", True),
            ("size", 1.5),
            ("act_bits", "8"),
            ("act_bits", None),
            ("latency", 35),
        ],
    )
    def test_a_value_of_another_type_is_named(self, field: str, value: object):
        with pytest.raises(BudgetError, match=f"{field} is {value!r}; expected"):
            Budget(**{field: value})


class TestQuality:
    @pytest.mark.parametrize(
        ("given", "expected"), [("35dB", 35.0), ("35.5 db", 35.5), ("35", 35.0), (35, 35.0)]
    )
    def test_it_is_in_decibels_and_leaves_bytes_free(self, given, expected):
        budget = Budget(quality=given)
        assert budget.decibels == expected
        assert not budget.limits_bytes

    @pytest.mark.parametrize("given", ["high", "-3dB", "nan", "inf", "35ms", True, [35]])
    def test_anything_else_is_refused(self, given):
        with pytest.raises(BudgetError, match="quality"):
            Budget(quality=given)
