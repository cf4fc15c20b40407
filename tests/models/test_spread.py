"""A few calls, and their samples, spread over timesteps, prompts and the halves of guidance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.models.spread import (
    members_of_step,
    rows_of_batch,
    steps_of_strata,
    strata_of_runs,
)

counts = st.integers(1, 40)


class TestCalls:
    @pytest.mark.parametrize(
        ("calls", "steps", "expected"),
        [(8, 50, [3, 9, 15, 21, 28, 34, 40, 46]), (8, 8, list(range(8))), (2, 4, [1, 3])],
    )
    def test_one_run_gives_one_from_the_middle_of_each_part(self, calls, steps, expected):
        (strata,) = strata_of_runs(calls, 1).values()
        assert list(steps_of_strata(strata, calls, steps)) == expected

    def test_runs_take_turns_so_that_each_sees_the_whole_schedule(self):
        strata = strata_of_runs(8, 2)
        found = {run: list(steps_of_strata(parts, 8, 50)) for run, parts in strata.items()}
        assert found == {0: [3, 15, 28, 40], 1: [9, 21, 34, 46]}

    def test_of_more_runs_than_calls_some_spread_evenly_give_one_each(self):
        assert strata_of_runs(3, 12) == {2: (0,), 6: (1,), 10: (2,)}

    @given(calls=counts, runs=counts)
    def test_every_part_of_the_schedule_has_one_run(self, calls, runs):
        parts = [part for each in strata_of_runs(calls, runs).values() for part in each]
        assert sorted(parts) == list(range(calls))

    @given(
        data=st.data(), runs=st.integers(1, 5), steps=st.integers(1, 9), members=st.integers(1, 3)
    )
    def test_no_call_is_left_out_where_all_fit(self, data, runs, steps, members):
        total = runs * steps * members
        calls = data.draw(st.integers(total, 2 * total))
        for parts in strata_of_runs(calls, runs).values():
            found = steps_of_strata(parts, calls, steps)
            assert list(found) == list(range(steps))
            for places in found.values():
                assert members_of_step(places, members) == tuple(range(members))

    @given(calls=counts, runs=counts, steps=counts, members=st.integers(1, 3))
    def test_never_more_are_kept_than_asked_for(self, calls, runs, steps, members):
        kept = sum(
            len(members_of_step(places, members))
            for parts in strata_of_runs(calls, runs).values()
            for places in steps_of_strata(parts, calls, steps).values()
        )
        assert kept <= min(calls, runs * steps * members)

    def test_steps_of_two_calls_give_either_in_turn(self):
        places = steps_of_strata(range(8), 8, 50).values()
        assert [members_of_step(each, 2) for each in places] == [(0,), (1,)] * 4


class TestRows:
    def test_a_call_has_every_prompt_and_both_halves(self):
        assert rows_of_batch(0, 16, 8, 8) == (0, 2, 4, 6, 9, 11, 13, 15)

    def test_the_next_call_has_the_other_half_of_each_prompt(self):
        first, second = (rows_of_batch(place, 16, 8, 8) for place in (0, 1))
        assert sorted([*first, *second]) == list(range(16))

    @given(
        prompts=st.integers(1, 32),
        halves=st.integers(1, 3),
        samples=st.integers(1, 32),
        place=st.integers(0, 7),
    )
    def test_they_are_different_rows_of_the_batch(self, prompts, halves, samples, place):
        rows = rows_of_batch(place, prompts * halves, prompts, samples)
        assert len(set(rows)) == len(rows) == min(samples, prompts * halves)
        assert list(rows) == sorted(rows)
        assert rows[-1] < prompts * halves

    @given(prompts=st.integers(1, 32), halves=st.integers(1, 3))
    def test_eight_calls_have_every_prompt_and_all_halves_of_the_walk(self, prompts, halves):
        seen = [
            row for place in range(8) for row in rows_of_batch(place, prompts * halves, prompts, 8)
        ]
        assert {row % prompts for row in seen} == set(range(prompts))
        assert {row // prompts for row in seen} == set(range(halves))

    def test_a_batch_that_is_no_multiple_of_the_prompts_is_walked_row_by_row(self):
        assert rows_of_batch(1, 7, 3, 2) == (2, 3)
