"""Exchanges at equal bytes, kept only where they prove to help; a second round of labels."""

import numpy as np
import pytest

from mezzotint.recipes.qua2sedimo.around import settled
from mezzotint.recipes.qua2sedimo.byte_window import byte_window
from mezzotint.recipes.qua2sedimo.nearby import nearby
from mezzotint.recipes.qua2sedimo.trades import confirmed, proposed_trades, screened
from tests.recipes.qua2sedimo.planted import gains_of, linear, space_of


@pytest.fixture
def found():
    """Space, prediction, window, and the configuration that the program found."""
    space = space_of((1,) * 10)
    value = linear(gains_of(space))
    window = byte_window(space, 3.65 * int(space.sizes.sum()) / 8)
    start = np.zeros(len(space.keys), dtype=np.int64)
    return space, value, window, settled(space, value, window, start, rounds=5).configuration


def test_proposals_stay_within_the_bytes_best_first(found):
    space, value, window, incumbent = found
    trades = proposed_trades(space, value, window, incumbent, 20)
    assert 0 < len(trades) <= 20
    for trade in trades:
        after = trade.made(incumbent)
        assert (after != incumbent).sum() == 2
        assert window.holds(int(space.stored(after)))
        assert trade.gain == pytest.approx(value(after[None])[0] - value(incumbent[None])[0])
    assert [each.gain for each in trades] == sorted((each.gain for each in trades), reverse=True)


def test_an_exchange_that_proves_to_help_is_kept(found):
    space, value, window, incumbent = found
    trades = proposed_trades(space, value, window, incumbent, 20)
    chosen = trades[3]

    def measured(configuration):
        good = (configuration[list(chosen.weights)] == chosen.formats).all()
        seeds = np.arange(8.0)
        return list(10 + seeds - (1 + 0.01 * seeds) * good)

    found = screened(trades, incumbent, window, space, measured)
    assert found.passed == (chosen,)
    result = confirmed(found, incumbent, measured)
    assert result.kept == (chosen,)
    assert (result.configuration == chosen.made(incumbent)).all()
    assert result.after < result.before == found.level


@pytest.mark.parametrize("fall", [0.0, 0.01, -1.0], ids=["no gain", "within error", "a loss"])
def test_an_exchange_that_does_not_is_undone(found, fall):
    space, value, window, incumbent = found
    trades = proposed_trades(space, value, window, incumbent, 20)

    def measured(configuration):
        changed = (configuration != incumbent).any()
        jitter = np.array([1.0, -1.0] * 4) * changed
        return list(10 + jitter - fall * changed)

    result = screened(trades, incumbent, window, space, measured)
    assert result.passed == ()
    assert (result.configuration == incumbent).all()
    end = confirmed(result, incumbent, None)  # nothing is measured
    assert (end.kept, end.before, end.after) == ((), 10.0, 10.0)
    assert (end.configuration == incumbent).all()


def test_layers_that_were_exchanged_are_left_alone(found):
    space, value, window, incumbent = found
    trades = proposed_trades(space, value, window, incumbent, 20)

    def measured(configuration):
        return list(np.arange(4.0) - (configuration != incumbent).sum())

    kept = screened(trades, incumbent, window, space, measured).passed
    touched = [weight for trade in kept for weight in trade.weights]
    assert len(kept) > 1
    assert len(touched) == len(set(touched))


@pytest.mark.parametrize(("gain", "least", "most"), [(0.0, 0.0, 0.05), (1.5, 0.95, 1.0)])
def test_chance_keeps_exchanges_in_one_run_of_twenty_however_many_are_tried(
    found, gain, least, most
):
    """Some that change nothing pass, more often than not; those that help are kept."""
    space, value, window, incumbent = found
    trades = proposed_trades(space, value, window, incumbent, 20)
    generator, passed, kept, runs = np.random.default_rng(0), 0, 0, 400

    def measured(configuration):
        changed = (configuration != incumbent).any()
        return list(generator.normal(10 - gain * changed, 0.5, 8))

    for _ in range(runs):
        seen = screened(trades, incumbent, window, space, measured)
        passed += bool(seen.passed)
        kept += bool(confirmed(seen, incumbent, measured).kept)
    assert passed > runs / 2
    assert least * runs <= kept <= most * runs


def test_what_ruins_the_model_is_not_confirmed(found):
    space, value, window, incumbent = found
    trades = proposed_trades(space, value, window, incumbent, 1)
    seen = screened(
        trades, incumbent, window, space, lambda each: [float((each == incumbent).all())] * 8
    )
    assert len(seen.passed) == 1
    end = confirmed(
        seen, incumbent, lambda each: [1.0 if (each == incumbent).all() else np.inf] * 8
    )
    assert end.kept == ()
    assert (end.configuration == incumbent).all()


def test_a_second_round_changes_three_choices_at_equal_bytes(found):
    space, _, window, incumbent = found
    drawn = nearby(space, window, incumbent, 30, seed=1)
    assert len({tuple(row) for row in drawn}) == 30
    assert ((drawn != incumbent).sum(axis=1) == 3).all()
    assert all(window.holds(int(each)) for each in space.stored(drawn))
    assert (drawn == nearby(space, window, incumbent, 30, seed=1)).all()
    assert (drawn != nearby(space, window, incumbent, 30, seed=2)).any()
