"""Probes of inputs with a scale for each timestep.

The denoiser has one output per sample, linear in what changes: every estimate is exact.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mezzotint._journal import Journal
from mezzotint.errors import CalibrationError, FormatError
from mezzotint.formats import parse_activation_format
from mezzotint.measuring import (
    InputCandidate,
    InputChange,
    LayerCandidates,
    PlanChange,
    Probe,
    StepTable,
)
from mezzotint.models import Call
from mezzotint.plan import Choice, LayerShape, Plan
from mezzotint.runtime import Calibration, SplitInput, StepScales
from tests.measuring.figures import noise
from tests.measuring.probing import call_of, probed
from tests.runtime.layers import noise as randn
from tests.runtime.stepped import STEPS, TIMESTEPS, step_tables

FORMAT = parse_activation_format("uint4/step")
CALIBRATION = Calibration(tensors={"layer": step_tables()})
SHAPE = LayerShape((6, 8))
(TABLE,) = StepTable.each_of((STEPS,), SHAPE, step_tables())
CANDIDATE = InputCandidate(FORMAT, steps=(TABLE,))
CHOICE = Choice("int4/channel", "uint4/step", (STEPS,))


class Single(nn.Module):
    """A Linear whose outputs are summed up, with factors, to one value per sample."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(8, 6)

    def forward(self, sample: Tensor, timestep: Tensor | float) -> Tensor:
        y = self.layer(sample)
        return (y * randn(*y.shape[1:], seed=2)).flatten(1).sum(1, keepdim=True)


def call_at(timestep: object, samples: int = 2) -> tuple[Single, Call]:
    network = Single()
    return network, call_of(network, randn(samples, 3, 8), timestep)


def asked(candidate: InputCandidate = CANDIDATE) -> dict[str, LayerCandidates]:
    return {"layer": LayerCandidates(inputs={"step": candidate})}


@pytest.mark.parametrize("timestep", [*TIMESTEPS, 300, torch.tensor([10, 900])], ids=str)
def test_an_input_is_as_measured_at_every_timestep(timestep: object):
    network, call = call_at(timestep)
    rows = [Probe(0, row, 0) for row in range(2)]
    found = probed(network, [call], asked(), rows, calibration=CALIBRATION)
    expected = noise(network, InputChange("layer", CHOICE), [call], CALIBRATION)
    assert found.noise_of_input("layer", "step") == pytest.approx(expected, rel=1e-2)


def test_samples_that_stay_together_take_their_own_timesteps():
    network, call = call_at(torch.tensor([10, 900]))
    probes = [Probe(0, None, 0), Probe(0, None, 1)]  # of other signs: what is mixed cancels
    found = probed(network, [call], asked(), probes, calibration=CALIBRATION)
    expected = noise(network, InputChange("layer", CHOICE), [call], CALIBRATION)
    assert found.noise_of_input("layer", "step") == pytest.approx(expected, rel=1e-2)


def test_a_plan_around_which_probes_are_takes_its_own():
    network, call = call_at(900)
    plan = Plan({"layer": CHOICE})
    weights = {"layer": LayerCandidates(("int4/channel", "int8/channel"))}
    rows = [Probe(0, row, 0) for row in range(2)]
    found = probed(network, [call], weights, rows, calibration=CALIBRATION, plan=plan)
    residual = (found.residual**2 / found.energy).mean()
    assert residual == pytest.approx(
        noise(network, PlanChange(plan), [call], CALIBRATION), rel=1e-2
    )


def test_other_tables_are_probed_anew():
    network, call = call_at(10)
    journal = Journal(None, {})
    other = StepTable(TABLE.timesteps, tuple(2 * each for each in TABLE.scales), TABLE.zero_points)
    first, second = (
        probed(network, [call], asked(each), 1, journal)
        for each in (CANDIDATE, InputCandidate(FORMAT, steps=(other,)))
    )
    assert first.inputs["layer"]["step"] != second.inputs["layer"]["step"]


def test_a_call_without_a_timestep_is_refused():
    network, call = call_at(None)
    with pytest.raises(CalibrationError, match="without a timestep"):
        probed(network, [call], asked(), 1)


@pytest.mark.parametrize("structures", [(), (SplitInput(4),)], ids=["none", "two quantizers"])
def test_a_table_is_asked_of_every_quantizer(structures: tuple[SplitInput, ...]):
    network, call = call_at(10)
    tables = (TABLE,) if structures else ()
    candidate = InputCandidate(FORMAT, steps=tables)
    wanted = {"layer": LayerCandidates(inputs={"step": candidate}, structures=structures)}
    with pytest.raises(FormatError, match=r"layer layer: .* tables of scales for"):
        probed(network, [call], wanted, 1)


def test_tables_stand_in_the_order_of_the_quantizers():
    structures = SplitInput(3), StepScales(3)
    tables = {"first": step_tables(), "second": step_tables(scales=(1.0, 2.0, 3.0))}
    tensors = {f"{part}.{n}": t for part, each in tables.items() for n, t in each.items()}
    found = StepTable.each_of(structures, SHAPE, tensors)
    assert [each.scales for each in found][1] == (1.0, 2.0, 3.0)
    assert found[0] == TABLE


def test_a_missing_table_is_named():
    with pytest.raises(FormatError, match="timestep has to be calibrated"):
        StepTable.each_of((STEPS,), SHAPE, {})
