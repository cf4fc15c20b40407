"""Every switch of the default recipe changes the bytes or the plan."""

from __future__ import annotations

import pytest
import torch

import mezzotint as mz
from mezzotint.errors import UsageError
from mezzotint.formats import MINMAX
from mezzotint.runtime import packed_layers

QUICK = {"sensitivity": "probes", "exchanges": False, "bias_correction": "never"}


def stored(result: mz.ModuleResult) -> dict[str, torch.Tensor]:
    return dict(result.module.state_dict())


def differ(one: mz.ModuleResult, other: mz.ModuleResult) -> bool:
    """True where formats or stored tensors do."""
    if one.plan.choices != other.plan.choices:
        return True
    left, right = stored(one), stored(other)
    return any(not torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(
    "switch",
    [
        {"rounding": "nearest"},
        {"bias_correction": "always"},
        {"search": MINMAX},
        {"formats": ("int2/channel", "int3/channel", "int8/channel")},
        {"inputs": ("float",), "act_share": 0},
        {"act_share": 0.5},
        {"smoothing": False},
        {"activation": "int8/token"},
    ],
    ids=str,
)
def test_it_changes_what_is_stored(run, switch):
    assert differ(run(**QUICK), run(**QUICK | switch))


@pytest.mark.parametrize(
    "switch", [{"rounding": "nearest"}, {"bias_correction": "always"}], ids=str
)
def test_it_changes_the_same_formats_bytes(run, switch):
    one = {"formats": ("int3/channel",), "activation": "float"}
    plain, changed = (
        run(mz.Budget(16), **QUICK, **one),
        run(mz.Budget(16), **QUICK | one | switch),
    )
    assert plain.plan.choices == changed.plan.choices
    assert differ(plain, changed)
    assert plain.plan.encoding != changed.plan.encoding


def test_sensitivities_are_those_of_the_rounding_that_is_stored(run):
    one = {"formats": ("int3/channel",), "activation": "float", **QUICK}
    noises = [
        run(mz.Budget(16), **one, rounding=rounding).plan.context["predicted_sqnr_db"]
        for rounding in ("feedback", "nearest")
    ]
    assert noises[0] > noises[1] + 1


def test_bias_correction_moves_the_mean_of_a_layers_output_back(run):
    one = {"formats": ("int2/channel",), "activation": "float", **QUICK}
    corrected, plain = (
        packed_layers(run(mz.Budget(16), **one | {"bias_correction": switch}).module)["last"].bias
        for switch in ("always", "never")
    )
    assert not torch.equal(corrected, plain)


def test_exchanges_are_looked_for_unless_switched_off(run):
    found = run(probes=64).plan.context["exchanges"]
    assert found["held_out"] == "every 4th of 16 recorded samples"
    assert found["kept"] in (0, found["tried"])
    assert "exchanges" not in run(exchanges=False).plan.context


def test_corrected_biases_are_tried_and_kept_where_held_out_samples_gain(run):
    options = {"sensitivity": "hybrid", "bias_correction": "tried"}
    plan = run(mz.Budget(16), **QUICK | options).plan
    tried = plan.context["bias_correction"]
    assert tried["kept"] == (tried["held_out_gain"] > tried["standard_error"])
    assert plan.encoding.bias_correction == tried["kept"]


def test_biases_that_rounding_shifts_far_are_corrected(run):
    options = {"formats": ("int2/channel",), "activation": "float", "rounding": "nearest"}
    options = QUICK | options | {"sensitivity": "hybrid"}
    plan = run(mz.Budget(16), **options | {"bias_correction": "tried"}).plan
    assert plan.context["bias_correction"]["kept"]


@pytest.mark.parametrize("count", [0, 3, 257])
def test_probes_are_as_many_as_tell_enough_and_no_more_than_are_worth_it(count):
    with pytest.raises(UsageError, match=f"probes: is {count}; give 4 to 256"):
        mz.Auto(probes=count)
