"""Exchanges of bytes between the layers of a plan, kept where held-out samples gain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

import mezzotint as mz
from mezzotint.errors import ProbeError
from mezzotint.models import completed_calls
from mezzotint.recipes import Job
from mezzotint.recipes.auto.allocation import Found, allocated
from mezzotint.recipes.auto.exchanges import exchanged
from mezzotint.recipes.auto.preparation import prepared
from mezzotint.recipes.auto.search import Search
from mezzotint.recipes.costs import BYTES
from tests.recipes.auto.conftest import FORMATS
from tests.recipes.auto.denoisers import Chain, calls


@contextmanager
def searching(count: int = 8, samples: int = 4, **options: object) -> Iterator[Search]:
    module = Chain(peak=1.0).eval()
    recorded = completed_calls(module, calls(count, samples))
    job = Job(module, "chain", mz.Budget(weight_bits=4.7, act_bits=16), calls=recorded)
    given = {"formats": FORMATS, "regret": 1e9, "sensitivity": "probes", **options}
    with prepared(job, mz.Auto(**given)) as search:
        yield search


def uneven(search: Search, found: Found) -> Found:
    """A plan of as many bytes that no program would find: 2 bits in one layer, 8 in another."""
    weights = dict(
        zip(
            found.choices,
            ("int2/channel", "int8/channel", "int2/channel", "int6/channel"),
            strict=True,
        )
    )
    return replace(
        found,
        choices={name: replace(each, weight=weights[name]) for name, each in found.choices.items()},
    )


def test_a_poor_plan_is_mended_within_its_bytes():
    with searching() as search:
        poor = uneven(search, allocated(search))
        better = exchanged(search, poor)
        before, after = search.plan_losses([search.plan(each.choices) for each in (poor, better)])
        told = better.summary["exchanges"]
        assert told["kept"] == told["tried"] > 0
        assert told["held_out_gain"] > told["standard_error"]
        assert told["predicted_change"] < 0
        assert after < 0.9 * before
        assert search.program.allows(better.choices)
        assert search.program.used(better.choices, BYTES) <= search.program.limits[0].maximum


def test_a_change_that_does_not_help_on_held_out_samples_is_not_kept(monkeypatch):
    with searching() as search:
        poor = uneven(search, allocated(search))
        ordinary = Search.sample_noises
        monkeypatch.setattr(
            Search, "sample_noises", lambda self, plans: ordinary(self, plans)[::-1]
        )
        found = exchanged(search, poor)
        assert found.choices == poor.choices
        assert found.summary["exchanges"]["tried"] > 0
        assert found.summary["exchanges"]["kept"] == 0


def test_they_are_looked_for_with_as_many_probes_as_the_plan_needed():
    with searching(probes=4, regret=0.5) as search:
        found = exchanged(search, allocated(search))
        assert found.summary["exchanges"]["probes"] == found.summary["probes"] > 4


def test_inputs_stay_as_they_are():
    with searching() as search:
        poor = uneven(search, allocated(search))
        better = exchanged(search, poor)
        assert {n: c.activation for n, c in better.choices.items()} == {
            n: c.activation for n, c in poor.choices.items()
        }


def test_too_few_samples_leave_the_plan_and_say_so():
    with searching(count=1, samples=4) as search:
        found = allocated(search)
        unchanged = exchanged(search, found)
        assert unchanged.choices == found.choices
        assert unchanged.notes[-1].startswith("no exchanges: too few samples")


def test_a_model_that_cannot_be_probed_is_left_as_it_is(monkeypatch):
    with searching() as search:
        found = allocated(search)

        def fails(*_: object, **__: object) -> None:
            raise ProbeError("there is no way back")

        monkeypatch.setattr(Search, "projections", fails)
        unchanged = exchanged(search, found)
        assert unchanged.choices == found.choices
        assert unchanged.notes[-1] == "no exchanges: there is no way back"


@pytest.mark.parametrize("switch", [True, False])
def test_it_can_be_switched_off(run, switch):
    assert ("exchanges" in run(exchanges=switch).plan.context) == switch
