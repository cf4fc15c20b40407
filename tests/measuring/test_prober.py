"""Estimates of probes against what each change does to the output.

A denoiser with a single output per sample leaves nothing to chance: the one random sign squared is
1. Where that output is linear in what changes, every estimate is exact.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mezzotint.calibration import input_ranges, observe_structures
from mezzotint.formats import parse_activation_format
from mezzotint.measuring import (
    Change,
    InputCandidate,
    InputChange,
    LayerCandidates,
    LayerChange,
    PlanChange,
    Probe,
)
from mezzotint.models import Call
from mezzotint.plan import Choice, Encoding, Plan, Structure
from mezzotint.runtime import Calibration, ConstantTokens, InputRange, Smoothing, SplitInput
from tests.measuring.figures import CALIBRATION, noise
from tests.measuring.probing import call_of, candidates, dynamic, packed_weights, probed

W, X = ("int3/channel", "int6/channel"), ("int4/token", "int8/token")


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class TwoLinear(nn.Module):
    """A network whose output is linear in either weight, and in either input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class TestRandomSigns:
    N = 4096

    @pytest.mark.parametrize("what", ["weight", "input"])
    def test_the_mean_is_the_noise_and_the_variance_as_derived(self, what: str):
        network = TwoLinear()
        call = call_of(network, randn(1, 3, 6))
        probes = [Probe(0, 0, seed) for seed in range(self.N)]
        asked = candidates(["first"], W[:1]) | candidates(["second"], (), X[:1])
        found = probed(network, [call], asked, probes)
        change: Change = LayerChange("first", Choice(W[0]))
        raw, estimate = found.weights["first"][W[0]], found.noise_of_weight("first", W[0])
        if what == "input":
            change = InputChange("second", Choice("int8/channel", X[0]))
            raw, estimate = found.inputs["second"][X[0]], found.noise_of_input("second", X[0])
        with torch.no_grad(), change.applied(network, CALIBRATION) as changed:
            delta = (changed(*call.args) - call.output).double()
        power, fourth = float(delta.square().sum()), float(delta.pow(4).sum())
        variance = 2 * (power**2 - fourth)
        error = math.sqrt(variance / self.N) / float(call.output.double().square().sum())
        assert np.var(raw**2) == pytest.approx(variance, rel=0.15)
        assert estimate == pytest.approx(noise(network, change, [call]), abs=3 * error)


class Single(nn.Module):
    """A layer whose outputs are summed up, with random factors, to one value per sample."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        y = torch.stack([self.layer(each) for each in (x, *others)]).sum(0)
        return (y * randn(*y.shape[1:], seed=2)).flatten(1).sum(1, keepdim=True)


torch.manual_seed(0)
LAYERS = {
    "linear": (nn.Linear(6, 5), (6,)),
    "tokens": (nn.Linear(6, 5, bias=False), (7, 6)),
    "conv": (nn.Conv2d(6, 5, 3, padding=1), (6, 8, 8)),
    "strided conv": (nn.Conv2d(6, 4, (3, 2), stride=2, dilation=(1, 2)), (6, 8, 8)),
    "grouped conv": (nn.Conv2d(6, 4, 3, groups=2), (6, 8, 8)),
}


@pytest.fixture(params=LAYERS, ids=str)
def single(request: pytest.FixtureRequest) -> tuple[Single, Call]:
    layer, shape = LAYERS[request.param]
    network = Single(layer)
    return network, call_of(network, randn(1, *shape))


class TestOneLayer:
    @pytest.mark.parametrize("weight", [*W, "uint4/group8", "kmeans3/channel"])
    def test_a_weight_is_as_measured(self, single: tuple[Single, Call], weight: str):
        network, call = single
        if weight.endswith("group8") and network.layer.weight[0].numel() % 8:
            weight = "uint4/tensor"
        found = probed(network, [call], candidates(["layer"], [weight]), 1)
        expected = noise(network, LayerChange("layer", Choice(weight)), [call])
        assert found.noise_of_weight("layer", weight) == pytest.approx(expected, rel=1e-2)

    @pytest.mark.parametrize("key", [*X, "uint8/token"])
    def test_an_input_is_as_measured(self, single: tuple[Single, Call], key: str):
        network, call = single
        found = probed(network, [call], candidates(["layer"], (), [key]), 1)
        change = InputChange("layer", Choice("int8/channel", key))
        assert found.noise_of_input("layer", key) == pytest.approx(
            noise(network, change, [call]), rel=1e-2
        )

    def test_estimates_change_with_the_format(self, single: tuple[Single, Call]):
        network, call = single
        found = probed(network, [call], candidates(["layer"], W, X), 1)
        noises = [found.noise_of_weight("layer", name) for name in W]
        noises += [found.noise_of_input("layer", name) for name in X]
        assert min(noises) > 0
        assert len(set(noises)) == len(W) + len(X)

    def test_static_inputs_take_the_ranges_that_are_given(self, single: tuple[Single, Call]):
        network, call = single
        static = Choice("int8/channel", "uint8/tensor")
        (full,) = input_ranges(network, {"layer": static}, [call], momentum=None)["layer"]
        ranges = {"full": full, "clipped": InputRange(full.low / 3, full.high / 3)}
        activation = parse_activation_format("uint8/tensor")
        inputs = {key: InputCandidate(activation, (each,)) for key, each in ranges.items()}
        found = probed(network, [call], {"layer": LayerCandidates(inputs=inputs)}, 1)
        for key, each in ranges.items():
            calibration = Calibration({"layer": (each,)})
            expected = noise(network, InputChange("layer", static), [call], calibration)
            assert found.noise_of_input("layer", key) == pytest.approx(expected, rel=1e-2)

    def test_what_stays_floating_costs_nothing(self, single: tuple[Single, Call]):
        network, call = single
        asked = {"layer": LayerCandidates(("float",), {"float": InputCandidate()})}
        found = probed(network, [call], asked, 1)
        assert found.noise_of_weight("layer", "float") == 0
        assert found.noise_of_input("layer", "float") == 0

    def test_a_change_of_the_bias_stands_within_the_square(self, single: tuple[Single, Call]):
        network, call = single
        value, _ = packed_weights(network)("layer", Choice(W[0]))
        shift = randn(value.shape[0], seed=5)
        found = probed(
            network,
            [call],
            candidates(["layer"], W[:1]),
            1,
            weight_of=lambda *_: (value, shift),
        )
        layer = network.layer
        bias = shift if layer.bias is None else shift + layer.bias.detach()
        network.layer = _with(layer, value, bias)
        with torch.no_grad():
            output = network(*call.args)
        expected = float((output / call.output - 1).square())
        assert found.noise_of_weight("layer", W[0]) == pytest.approx(expected, rel=1e-2)


def _with(layer: nn.Module, weight: Tensor, bias: Tensor) -> Callable[[Tensor], Tensor]:
    """A layer like `layer`, with another weight and bias."""
    if isinstance(layer, nn.Linear):
        other: nn.Module = nn.Linear(layer.in_features, layer.out_features)
    else:
        assert isinstance(layer, nn.Conv2d)
        options = {
            name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")
        }
        other = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, **options)
    other.weight, other.bias = nn.Parameter(weight), nn.Parameter(bias)
    return other


class TestSharing:
    """Contributions of a layer's runs are summed before they are squared."""

    def test_a_layer_that_runs_again(self):
        network = Single(nn.Linear(6, 5))
        call = call_of(network, randn(1, 6), randn(1, 6, seed=3))
        found = probed(network, [call], candidates(["layer"], W, X), 1)
        for weight in W:
            expected = noise(network, LayerChange("layer", Choice(weight)), [call])
            assert found.noise_of_weight("layer", weight) == pytest.approx(expected, rel=1e-2)
        for key in X:
            change = InputChange("layer", Choice("int8/channel", key))
            assert found.noise_of_input("layer", key) == pytest.approx(
                noise(network, change, [call]), rel=1e-2
            )

    @pytest.mark.parametrize("shared", ["module", "parameter"])
    def test_a_weight_of_two_names(self, shared: str):
        class Tied(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.one = nn.Linear(6, 1)
                self.two = self.one if shared == "module" else nn.Linear(6, 1)
                self.two.weight = self.one.weight

            def forward(self, x: Tensor) -> Tensor:
                return self.one(x) + self.two(x.square())

        torch.manual_seed(0)
        network = Tied()
        call = call_of(network, randn(1, 6))
        found = probed(network, [call], candidates(["one"], W[:1]), 1)
        expected = noise(network, LayerChange("one", Choice(W[0])), [call])
        assert found.noise_of_weight("one", W[0]) == pytest.approx(expected, rel=1e-2)

    def test_a_weight_that_is_read_directly(self):
        class Reading(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(6, 1)

            def forward(self, x: Tensor) -> Tensor:
                return self.layer(x) + x.square() @ self.layer.weight.T

        torch.manual_seed(0)
        network = Reading()
        call = call_of(network, randn(1, 6))
        found = probed(network, [call], candidates(["layer"], W[:1]), 1)
        expected = noise(network, LayerChange("layer", Choice(W[0])), [call])
        assert found.noise_of_weight("layer", W[0]) == pytest.approx(expected, rel=1e-2)


class TestIgnoredLayers:
    class Ignoring(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.ignored, self.cut, self.idle = (nn.Linear(4, 4) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            self.ignored(x)
            return self.used(x) + 0 * self.cut(x)

    @pytest.mark.parametrize("name", ["ignored", "cut", "idle"])
    def test_what_the_output_does_not_depend_on_costs_nothing(self, name: str):
        network = self.Ignoring()
        call = call_of(network, randn(2, 4))
        found = probed(network, [call], candidates(["used", name], W, X))
        assert all(found.noise_of_weight(name, weight) == 0 for weight in W)
        assert all(found.noise_of_input(name, key) == 0 for key in X)
        assert min(found.noise_of_weight("used", weight) for weight in W) > 0


@dataclass(frozen=True)
class Structured:
    layer: nn.Module
    shape: tuple[int, ...]
    structures: tuple[Structure, ...]


STRUCTURED = {
    "split linear": Structured(nn.Linear(6, 5), (4, 6), (SplitInput(2),)),
    "split conv": Structured(nn.Conv2d(6, 5, 3), (6, 5, 5), (SplitInput(2),)),
    "constant tokens": Structured(nn.Linear(6, 5), (4, 6), (ConstantTokens(1),)),
    "split others": Structured(nn.Linear(6, 5), (4, 6), (ConstantTokens(1), SplitInput(2))),
    "smoothed linear": Structured(nn.Linear(6, 5), (4, 6), (Smoothing(),)),
    "smoothed conv": Structured(nn.Conv2d(6, 4, 3, groups=2), (6, 5, 5), (Smoothing(),)),
    "smoothed others": Structured(nn.Linear(6, 5), (4, 6), (ConstantTokens(1), Smoothing())),
    "smoothed halves": Structured(nn.Conv2d(6, 5, 3), (6, 5, 5), (SplitInput(2), Smoothing())),
}
SMOOTHED = {name: each for name, each in STRUCTURED.items() if Smoothing() in each.structures}


@pytest.mark.parametrize("given", STRUCTURED.values(), ids=STRUCTURED)
class TestStructures:
    """Layers are probed as their packed form computes."""

    @pytest.fixture
    def network(self, given: Structured) -> Single:
        return Single(given.layer)

    @pytest.fixture
    def call(self, network: Single, given: Structured) -> Call:
        x = randn(2, *given.shape)
        x[:, 0] = x[0, 0]
        return call_of(network, x)

    @pytest.fixture
    def calibration(self, network: Single, call: Call, given: Structured) -> Calibration:
        found = observe_structures(network, {"layer": given.structures}, [call])
        choice = Choice("int8/channel", structures=given.structures)
        ranges = input_ranges(
            network, {"layer": choice}, [call], momentum=None, tensors=found.tensors
        )
        return Calibration(ranges, found.tensors)

    @pytest.mark.parametrize("weight", W)
    def test_a_weight_is_as_measured(
        self, network: Single, call: Call, calibration: Calibration, given: Structured, weight: str
    ):
        asked = candidates(["layer"], [weight], structures=given.structures)
        rows = [Probe(0, row, 0) for row in range(2)]
        found = probed(network, [call], asked, rows, calibration=calibration)
        change = LayerChange("layer", Choice(weight, structures=given.structures))
        expected = noise(network, change, [call], calibration)
        assert found.noise_of_weight("layer", weight) == pytest.approx(expected, rel=1e-2)

    @pytest.mark.parametrize("key", [*X, "uint8/tensor"])
    def test_an_input_is_as_measured(
        self, network: Single, call: Call, calibration: Calibration, given: Structured, key: str
    ):
        activation = parse_activation_format(key)
        ranges = calibration.input_ranges["layer"] if activation.static else ()
        inputs = {key: InputCandidate(activation, ranges)}
        asked = {"layer": LayerCandidates(inputs=inputs, structures=given.structures)}
        rows = [Probe(0, row, 0) for row in range(2)]
        found = probed(network, [call], asked, rows, calibration=calibration)
        change = InputChange("layer", Choice("int8/channel", key, given.structures))
        expected = noise(network, change, [call], calibration)
        assert found.noise_of_input("layer", key) == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("given", SMOOTHED.values(), ids=SMOOTHED)
class TestVariants:
    """A layer without smoothing is probed for candidates that smooth its input."""

    @pytest.fixture
    def network(self, given: Structured) -> Single:
        return Single(copy.deepcopy(given.layer))

    @pytest.fixture
    def call(self, network: Single, given: Structured) -> Call:
        x = randn(2, *given.shape)
        x[:, 0] = x[0, 0]
        x.select(-1 if isinstance(network.layer, nn.Linear) else 1, 3).mul_(40)
        network.layer.weight.data[:, 0] /= 10
        return call_of(network, x)

    @pytest.fixture
    def calibration(self, network: Single, call: Call, given: Structured) -> Calibration:
        found = {
            structures: observe_structures(network, {"layer": structures}, [call]).tensors
            for structures in (given.structures, given.structures[:-1])
        }
        ranges = input_ranges(
            network,
            {"layer": Choice("int8/channel", structures=given.structures)},
            [call],
            momentum=None,
            tensors=found[given.structures],
        )
        others = {given.structures: Calibration(ranges, found[given.structures])}
        return Calibration(tensors=found[given.structures[:-1]], others=others)

    @pytest.mark.parametrize("weight", W)
    def test_a_weight_is_as_measured(
        self, network: Single, call: Call, calibration: Calibration, given: Structured, weight: str
    ):
        choice = Choice(weight, structures=given.structures)
        asked = LayerCandidates((weight, "smooth"), {}, given.structures[:-1], {"smooth": choice})
        rows = [Probe(0, row, 0) for row in range(2)]
        found = probed(network, [call], {"layer": asked}, rows, calibration=calibration)
        expected = noise(network, LayerChange("layer", choice), [call], calibration)
        assert found.noise_of_weight("layer", "smooth") == pytest.approx(expected, rel=1e-2)
        plain = LayerChange("layer", choice.with_structures(*given.structures[:-1]))
        expected = noise(network, plain, [call], calibration)
        assert found.noise_of_weight("layer", weight) == pytest.approx(expected, rel=1e-2)

    @pytest.mark.parametrize("key", [*X, "uint8/tensor"])
    def test_an_input_is_as_measured(
        self, network: Single, call: Call, calibration: Calibration, given: Structured, key: str
    ):
        activation = parse_activation_format(key)
        choice = Choice("int8/channel", key, given.structures)
        known = calibration.under({"layer": choice})
        exponents = tuple(
            tuple(tensor.tolist())
            for name, tensor in known.tensors["layer"].items()
            if name.endswith("exponent")
        )
        assert any(map(any, exponents))
        ranges = known.input_ranges["layer"] if activation.static else ()
        inputs = {"smooth": InputCandidate(activation, ranges, exponents)}
        asked = LayerCandidates(inputs=inputs, structures=given.structures[:-1])
        rows = [Probe(0, row, 0) for row in range(2)]
        found = probed(network, [call], {"layer": asked}, rows, calibration=calibration)
        expected = noise(network, InputChange("layer", choice), [call], calibration)
        assert found.noise_of_input("layer", "smooth") == pytest.approx(expected, rel=1e-2)


class Narrow(nn.Module):
    """Two layers of which the first alone sees the network's input, and one output."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(16, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class TestAroundAPlan:
    """Stored weights, inputs rounded straight through: what an exchange adds to the plan's noise.

    The first layer's exchanges pass one linear layer, so estimates are exact.
    """

    PLAN = Plan(
        {"first": Choice("int4/channel", "int4/token"), "second": Choice("int3/channel")},
        encoding=Encoding(),
    )

    @pytest.fixture
    def network(self) -> Narrow:
        return Narrow()

    @pytest.fixture
    def call(self, network: Narrow) -> Call:
        return call_of(network, randn(3, 16))

    @pytest.fixture
    def found(self, network: Narrow, call: Call):
        weights = ("int2/channel", "int4/channel", "int8/channel", "float")
        inputs = dynamic("int4/token", "int8/token") | {"float": InputCandidate()}
        asked = {"first": LayerCandidates(weights, inputs), "second": LayerCandidates(weights)}
        probes = [Probe(0, row, seed) for row in range(3) for seed in range(2)]
        return probed(network, [call], asked, probes, plan=self.PLAN)

    def noise_of(self, network: Narrow, call: Call, **choices: Choice) -> float:
        plan = Plan({**self.PLAN.choices, **choices})
        return noise(network, PlanChange(plan), [call])

    def test_the_residual_is_the_noise_of_the_plan(self, network: Narrow, call: Call, found):
        noise = np.mean(found.residual**2 / found.energy)
        assert noise == pytest.approx(self.noise_of(network, call), rel=1e-2)

    @pytest.mark.parametrize("weight", ["int2/channel", "int8/channel"])
    @pytest.mark.parametrize("layer", ["first", "second"])
    def test_an_exchange_of_weights_is_as_measured(
        self, network: Narrow, call: Call, found, layer: str, weight: str
    ):
        other = Choice(weight, self.PLAN[layer].activation)
        expected = self.noise_of(network, call, **{layer: other}) - self.noise_of(network, call)
        assert found.noise_of_weight(layer, weight) == pytest.approx(expected, rel=1e-2)

    @pytest.mark.parametrize("key", ["int8/token", "float"])
    def test_an_exchange_of_an_input_is_as_measured(
        self, network: Narrow, call: Call, found, key: str
    ):
        other = Choice("int4/channel", key)
        expected = self.noise_of(network, call, first=other) - self.noise_of(network, call)
        assert found.noise_of_input("first", key) == pytest.approx(expected, rel=1e-2)

    def test_what_the_plan_has_already_changes_nothing(self, found):
        assert found.noise_of_weight("first", "int4/channel") == 0
        assert found.noise_of_input("first", "int4/token") == 0

    def test_halves_of_two_formats_stand_as_the_plan_has_them(self, network: Narrow, call: Call):
        other = (("second", "kmeans2/channel"),)
        split = (SplitInput(5),)
        plan = Plan({"first": Choice("int4/channel", "float", split, other)})
        weights = ("int4/channel", "both")
        asked = LayerCandidates(weights, structures=split, variants={"both": plan["first"]})
        probes = [Probe(0, row, seed) for row in range(3) for seed in range(2)]
        found = probed(network, [call], {"first": asked}, probes, plan=plan)
        noise_of = {
            name: noise(network, PlanChange(Plan({"first": choice})), [call])
            for name, choice in {"plan": plan["first"], "alike": asked.choice(weights[0])}.items()
        }
        residual = np.mean(found.residual**2 / found.energy)
        assert residual == pytest.approx(noise_of["plan"], rel=1e-2)
        assert found.noise_of_weight("first", "both") == 0
        exchange = found.noise_of_weight("first", "int4/channel")
        assert exchange == pytest.approx(noise_of["alike"] - noise_of["plan"], rel=1e-2)

    def test_shifts_of_the_bias_are_compared_with_the_plans(self, network: Narrow, call: Call):
        values = packed_weights(network)
        shifts = {"int4/channel": 0.3, "int8/channel": -0.2}

        def weight_of(name: str, choice: Choice) -> tuple[Tensor, Tensor | None]:
            shift = shifts.get(choice.weight)
            return values(name, choice)[0], None if shift is None else torch.full((8,), shift)

        plan = Plan({"first": Choice("int4/channel")})
        probes = [Probe(0, row, 0) for row in range(3)]
        asked = {"first": LayerCandidates(("int8/channel", "float"))}
        found = probed(network, [call], asked, probes, weight_of=weight_of, plan=plan)

        def measured(weight: str) -> float:
            value = network.first.weight.detach()
            if weight != "float":
                value, _ = values("first", Choice(weight))
            with torch.no_grad():
                hidden = call.args[0] @ value.T + network.first.bias + shifts.get(weight, 0.0)
                return float((network.second(hidden) / call.output - 1).square().mean())

        for weight in ("int8/channel", "float"):
            expected = measured(weight) - measured("int4/channel")
            assert found.noise_of_weight("first", weight) == pytest.approx(expected, rel=1e-2)
