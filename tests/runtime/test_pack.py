"""From a float layer, its plan and what was found for it to the packed layer."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mezzotint.errors import FormatError, PlanError
from mezzotint.formats import MINMAX, check_finite
from mezzotint.plan import Choice, Encoding, Plan
from mezzotint.runtime import (
    Calibration,
    ConstantTokens,
    GridValues,
    InputRange,
    Smoothing,
    SplitInput,
    check_input_ranges,
    pack_layer,
    pack_module,
    packed_copy,
    unfilled_layer,
)
from mezzotint.runtime.layer_grid import layer_grid
from mezzotint.runtime.pack import check_layer
from tests.runtime.layers import linear, noise

TRAINED = Encoding(MINMAX, "trained")
FORMATS = ("int4/channel", "uint3/group8", "int8/tensor", "kmeans4/channel", "mixed/int2:3,int4:4")


class TestOnce:
    """Nothing is checked, built or encoded twice for one layer."""

    @pytest.fixture
    def calls(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """Arguments of every call of a function, wherever it was imported to."""
        function, seen = request.param, []

        def counted(*arguments: Any) -> Any:
            seen.append(arguments)
            return function(*arguments)

        for path, module in list(sys.modules.items()):
            if path.startswith("mezzotint"):
                for name, value in list(vars(module).items()):
                    if value is function:
                        monkeypatch.setattr(module, name, counted)
        return seen

    PLAN = Plan({str(index): Choice("int4/channel", "uint8/tensor") for index in range(5)})
    CALIBRATION = Calibration({name: (InputRange(-1.0, 1.0),) for name in PLAN})

    @staticmethod
    def model() -> nn.Module:
        return nn.Sequential(*(nn.Linear(8, 8) for _ in range(5)))

    @pytest.mark.parametrize(
        "calls",
        [check_layer, unfilled_layer, check_finite, check_input_ranges, layer_grid],
        indirect=True,
        ids=lambda function: function.__name__,
    )
    def test_in_a_copy(self, calls: list[Any]):
        packed_copy(self.model(), self.PLAN, self.CALIBRATION)
        assert len(calls) == 5

    @pytest.mark.parametrize(
        "calls",
        [check_layer, unfilled_layer, check_input_ranges, layer_grid],
        indirect=True,
        ids=lambda function: function.__name__,
    )
    def test_in_place(self, calls: list[Any]):
        pack_module(self.model(), self.PLAN, self.CALIBRATION)
        assert len(calls) == 5

    @pytest.mark.parametrize("calls", [check_finite], indirect=True, ids=["check_finite"])
    def test_a_weight_that_is_replaced_in_place_is_looked_through_before_any_is(
        self, calls: list[Any]
    ):
        model = self.model()
        weights = [layer.weight for layer in model]
        pack_module(model, self.PLAN, self.CALIBRATION)
        assert all(seen is weight for (seen,), weight in zip(calls[:5], weights, strict=True))
        assert len(calls) == 10  # and once by its format


def random_values(choice: Choice, weight: Tensor, **parameters: Tensor) -> GridValues:
    """Any values of the grid that the plan's search gives `weight`, not the nearest ones."""
    weight_format = choice.weight_format
    assert weight_format is not None
    grid = layer_grid(weight_format, weight, TRAINED).with_parameters(parameters)
    codes = grid.nearest(noise(*weight.shape, seed=9) * weight.std())
    return GridValues(grid.values(codes).reshape(weight.shape), parameters)


class TestForeignCalibration:
    """Calibrated values that are nobody's are refused; they were meant for something else."""

    @pytest.mark.parametrize(
        "calibration",
        [
            Calibration({"fd": (InputRange(-1.0, 1.0),)}),
            Calibration(tensors={"fd": {}}),
            Calibration(weights={"fd": ()}),
        ],
        ids=["ranges", "tensors", "weights"],
    )
    @pytest.mark.parametrize("pack", [packed_copy, pack_module])
    def test_of_an_unknown_layer(self, calibration: Calibration, pack: Any):
        module = nn.Sequential()
        module.fc = linear()
        with pytest.raises(
            PlanError, match="calibration names layer fd, which Sequential does not"
        ):
            pack(module, Plan({"fc": Choice("int4/channel")}), calibration)
        assert type(module.fc) is nn.Linear

    @pytest.mark.parametrize("name", ["constent", "others.exponent"])
    def test_of_an_unknown_structure(self, name: str):
        tensors = {
            "constant": torch.zeros(1, 7, dtype=torch.int32),
            "known_input": torch.zeros(1, 19, dtype=torch.int16),
            name: torch.zeros(1),
        }
        plan = Plan({"fc": Choice("int4/channel", structures=(ConstantTokens(1),))})
        with pytest.raises(
            FormatError, match=f"layer fc: .* none of its structures has: {name[-8:]}"
        ):
            pack_layer("fc", linear(), plan, Calibration(tensors={"fc": tensors}))


class TestOtherStructures:
    """A calibration may be of several structures that a layer may have."""

    PLAIN, SMOOTH = Choice("int4/channel", "uint8/tensor"), (Smoothing(),)

    @pytest.fixture
    def calibration(self) -> Calibration:
        exponents = torch.arange(19, dtype=torch.int8).remainder(3)
        others = Calibration({"fc": (InputRange(-2.0, 2.0),)}, {"fc": {"exponent": exponents}})
        ranges = {"fc": (InputRange(-8.0, 8.0),), "other": (InputRange(0.0, 1.0),)}
        return Calibration(ranges, others={self.SMOOTH: others})

    def test_its_values_are_those_of_the_structures_at_hand(self, calibration: Calibration):
        smooth = self.PLAIN.with_structures(*self.SMOOTH)
        plain, smoothed = (calibration.under({"fc": each}) for each in (self.PLAIN, smooth))
        assert (plain.input_ranges, plain.tensors) == (calibration.input_ranges, {})
        assert smoothed.input_ranges["fc"] == (InputRange(-2.0, 2.0),)
        assert smoothed.input_ranges["other"] == calibration.input_ranges["other"]
        assert list(smoothed.tensors["fc"]) == ["exponent"]

    @pytest.mark.parametrize("smooth", [False, True])
    def test_layers_are_packed_with_those(self, calibration: Calibration, smooth: bool):
        choice = self.PLAIN.with_structures(*self.SMOOTH) if smooth else self.PLAIN
        plan = Plan({"fc": choice})
        alone = pack_layer("fc", linear(), plan, calibration).state_dict()
        module = nn.Sequential()
        module.fc = linear()
        module.other = nn.Identity()
        within = packed_copy(module, plan, calibration).fc.state_dict()
        expected = pack_layer("fc", linear(), plan, calibration.under({"fc": choice})).state_dict()
        assert alone.keys() == within.keys() == expected.keys()
        assert all(torch.equal(alone[name], expected[name]) for name in alone)
        assert all(torch.equal(within[name], expected[name]) for name in alone)
        scale = alone["smoothed.input_scale" if smooth else "input_scale"].view(torch.float32)
        assert float(scale) == pytest.approx((4 if smooth else 16) / 255)


class TestTrainedWeights:
    """Values that lie on the grid are stored as they are."""

    @pytest.mark.parametrize("name", FORMATS)
    def test_they_are_not_rounded_again(self, name: str):
        layer, choice = linear(), Choice(name)
        given = random_values(choice, layer.weight.detach())
        plan = Plan({"fc": choice}, encoding=TRAINED)
        packed = pack_layer("fc", layer, plan, Calibration(weights={"fc": (given,)}))
        assert torch.equal(packed.dequantized_weight(), given.values)
        rounded = pack_layer("fc", layer, Plan({"fc": choice}, encoding=Encoding(MINMAX)))
        assert not torch.equal(packed.dequantized_weight(), rounded.dequantized_weight())

    def test_scales_may_be_trained_too(self):
        layer, choice = linear(), Choice("int4/channel")
        given = random_values(choice, layer.weight.detach(), scale=torch.full((7, 1), 0.125))
        plan = Plan({"fc": choice}, encoding=TRAINED)
        packed = pack_layer("fc", layer, plan, Calibration(weights={"fc": (given,)}))
        assert torch.equal(packed.dequantized_weight(), given.values)

    def test_each_part_has_its_own(self):
        layer, choice = linear(), Choice("int4/channel", structures=(SplitInput(8),))
        parts = layer.weight.detach()[:, :8], layer.weight.detach()[:, 8:]
        given = tuple(random_values(choice, part) for part in parts)
        plan = Plan({"fc": choice}, encoding=TRAINED)
        packed = pack_layer("fc", layer, plan, Calibration(weights={"fc": given}))
        assert torch.equal(packed.dequantized_weight(), torch.cat([g.values for g in given], 1))

    def test_values_off_the_grid_are_refused(self):
        plan = Plan({"fc": Choice("int4/channel")}, encoding=TRAINED)
        given = GridValues(linear().weight.detach())
        with pytest.raises(FormatError, match=r"layer fc: .* do not lie on the grid"):
            pack_layer("fc", linear(), plan, Calibration(weights={"fc": (given,)}))

    @pytest.mark.parametrize(
        ("encoding", "count", "complaint"),
        [
            (TRAINED, 0, "rounding 'trained': its weight stands in the checkpoint"),
            (TRAINED, 2, "2 trained weights met 1 parts"),
            (Encoding(), 1, "its rounding is 'nearest'; make that 'trained'"),
        ],
        ids=["none", "too-many", "nearest"],
    )
    def test_the_plan_and_what_is_given_agree(self, encoding: Encoding, count: int, complaint: str):
        choice = Choice("int4/channel")
        given = (random_values(choice, linear().weight.detach()),) * count
        calibration = Calibration(weights={"fc": given})
        with pytest.raises(FormatError, match=f"layer fc: .*{complaint}"):
            pack_layer("fc", linear(), Plan({"fc": choice}, encoding=encoding), calibration)
