"""Mixtures of widths inside one layer among the candidates of the default recipe."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import mezzotint as mz
from mezzotint.calibration import observe_structures
from mezzotint.errors import UsageError
from mezzotint.formats import MixedFormat
from mezzotint.models import completed_calls
from mezzotint.recipes import Job
from mezzotint.recipes.auto.mixtures import with_mixtures
from mezzotint.recipes.found_structures import FoundStructures
from mezzotint.recipes.study import Study
from mezzotint.rounding import kurtosis
from mezzotint.runtime import ConstantTokens, packed_layers
from tests.recipes.auto.denoisers import WIDTH, Chain, calls

QUICK = {
    "sensitivity": "probes",
    "exchanges": False,
    "bias_correction": "never",
    "formats": ("uint3/channel", "int8/channel"),
    "activation": "float",
}
OUTLIERS = (3, 17, 20)


def with_outliers() -> Chain:
    """The middle layer has output channels with one weight far out, and some that are dead."""
    module = Chain().eval()
    with torch.no_grad():
        module.middle.weight[list(OUTLIERS), 5] = 2.0
        module.middle.weight[8:14] = 0.0
    return module


@pytest.fixture
def result(run) -> mz.ModuleResult:
    # Room for the order of channels and a few bits more in one of four layers.
    return run(mz.Budget(4.25), module=with_outliers(), mixtures=(3,), **QUICK)


def test_a_layer_with_outlier_channels_takes_one(result: mz.ModuleResult):
    fmt = result.plan["middle"].weight_format
    assert isinstance(fmt, MixedFormat)
    assert fmt.widths == (2, 3, 4)
    assert fmt.bits == 3.0
    assert fmt.counts[2] >= len(OUTLIERS)


def test_its_outlier_channels_have_the_most_bits_and_the_dead_ones_the_fewest(
    result: mz.ModuleResult,
):
    (layer,) = packed_layers(result.module)["middle"].parts
    few, _, many = torch.split(
        layer.packed_weight.order.argsort(), list(layer.packed_weight.format.counts)
    )
    assert set(OUTLIERS) <= set(many.tolist())
    dead = set((kurtosis(with_outliers().middle.weight) == 0).nonzero().flatten().tolist())
    assert set(few.tolist()) <= dead


def test_it_is_better_than_without(result: mz.ModuleResult, run):
    without = run(mz.Budget(4.25), module=with_outliers(), **QUICK)
    gained = result.plan.context["predicted_sqnr_db"] - without.plan.context["predicted_sqnr_db"]
    assert gained > 0.2


def test_structures_and_inputs_go_with_mixtures_as_with_other_formats(run):
    options = QUICK | {"activation": "int8/token"}
    result = run(mz.Budget(4.25), module=with_outliers(), mixtures=(3,), **options)
    assert str(result.plan["middle"]).startswith("mixed/uint2")
    assert result.plan["middle"].activation == "int8/token"


def test_a_constant_token_has_no_part_in_the_search():
    """A token that no quantizer sees meets one column alone, however large it is."""
    weight = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1))
    weight[:, 0] *= torch.linspace(1, 30, WIDTH)
    reader = torch.nn.Linear(WIDTH, WIDTH)
    reader.weight = torch.nn.Parameter(weight)
    module = torch.nn.Sequential(reader).eval()
    found = []
    for size in (1.0, 1e6):
        given = calls()
        for (x,), _ in given:
            x[:, 0] = 0.0
            x[:, 0, 0] = size
        recorded = completed_calls(module, given)
        study = Study.of(
            Job(module, "reader", mz.Budget(4), calls=recorded),
            bos=False,
            shortcuts="none",
            momentum=None,
        )
        constants = observe_structures(module, {"0": (ConstantTokens(1),)}, recorded).tensors
        study = dataclasses.replace(study, structures=FoundStructures(constants))
        candidates = study.structured((mz.Choice("int8/channel"),))
        found.append(with_mixtures(study, candidates, (3,)))
    assert found[0] == found[1]
    assert len(found[0]["0"]) == 2


def test_a_layer_of_few_channels_has_none(run):
    module = with_outliers()
    module.last = torch.nn.Linear(WIDTH, 9)
    result = run(mz.Budget(8), module=module, mixtures=(2, 3, 4), **QUICK)
    assert not result.plan["last"].weight.startswith("mixed")


@pytest.mark.parametrize("bits", [1, 8])
def test_widths_without_neighbours_are_refused(bits: int):
    with pytest.raises(UsageError, match=rf"mixtures: are of \({bits},\) bits"):
        mz.Auto(mixtures=(bits,))
