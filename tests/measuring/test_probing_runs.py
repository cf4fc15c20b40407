"""Runs of probes: what they leave behind, what they keep, and where they end."""

from __future__ import annotations

import base64
import copy
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mezzotint._journal import Journal
from mezzotint.errors import (
    CalibrationError,
    FormatError,
    JournalError,
    PlanError,
    ProbeError,
    UsageError,
)
from mezzotint.formats import parse_activation_format
from mezzotint.measuring import (
    InputCandidate,
    LayerCandidates,
    LayerChange,
    Probe,
    Projections,
    checkpointing,
    draw_probes,
)
from mezzotint.models import Call, inventory, on_device
from mezzotint.plan import Choice, Plan
from mezzotint.runtime import ConstantTokens, InputRange, SplitInput
from tests import journals
from tests.devices import DEVICES
from tests.measuring.conftest import recorded_calls
from tests.measuring.figures import noise
from tests.measuring.probing import call_of, candidates, dynamic, packed_weights, probed
from tests.measuring.restoring import assert_restored, state
from tests.models.tiny import TEXT_WIDTH, tiny_pixart, tiny_unet

WEIGHTS, INPUTS = ("int3/channel", "int6/channel"), ("int8/token",)
PLAN = Plan({"conv_in": Choice("int4/channel", "int8/token")})


def supported(denoiser: nn.Module) -> list[str]:
    return [layer.name for layer in inventory(denoiser) if layer.supported]


def equal(one: Projections, other: Projections) -> bool:
    def flat(found: Projections) -> list[np.ndarray]:
        kinds = (found.weights, found.inputs)
        nested = [each for kind in kinds for layer in kind.values() for each in layer.values()]
        return [found.energy, found.residual, *nested]

    return all(map(np.array_equal, flat(one), flat(other)))


class TestNothingIsLeftBehind:
    @pytest.fixture
    def unet(self) -> nn.Module:
        unet = tiny_unet()
        unet.train()
        unet.mid_block.eval()
        unet.conv_in.weight.requires_grad_(False)
        return unet

    @contextmanager
    def watched(self, unet: nn.Module) -> Iterator[None]:
        tensors = state(unet)
        parameters = dict(unet.named_parameters(remove_duplicate=False))
        required = {name: each.requires_grad for name, each in parameters.items()}
        modes = {name: module.training for name, module in unet.named_modules()}
        fields = {name: dict(vars(module)) for name, module in unet.named_modules()}
        yield
        assert_restored(unet, tensors)
        after = dict(unet.named_parameters(remove_duplicate=False))
        assert list(after) == list(parameters)
        assert all(after[name] is parameters[name] for name in parameters)
        assert {name: each.requires_grad for name, each in after.items()} == required
        assert all(each.grad is None for each in after.values())
        assert not any(each._post_accumulate_grad_hooks for each in after.values())
        assert {name: module.training for name, module in unet.named_modules()} == modes
        for name, module in unet.named_modules():
            assert vars(module).keys() == fields[name].keys()
            flag = "gradient_checkpointing"
            assert vars(module).get(flag) == fields[name].get(flag)

    @pytest.mark.parametrize("plan", [None, PLAN], ids=["floating", "plan"])
    @pytest.mark.parametrize("checkpointing", [False, True])
    def test_after_a_run(self, unet: nn.Module, checkpointing: bool, plan: Plan | None):
        calls = recorded_calls(unet)
        asked = candidates(supported(unet), WEIGHTS, INPUTS)
        with self.watched(unet):
            probed(unet, calls, asked, 2, checkpointing=checkpointing, plan=plan)

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, FormatError])
    def test_after_a_failure(self, unet: nn.Module, error: type[BaseException]):
        calls = recorded_calls(unet)
        asked = candidates(supported(unet), WEIGHTS)

        def failing(name: str, choice: Choice) -> tuple[Tensor, None]:
            raise error

        with self.watched(unet), pytest.raises((error, ProbeError)):
            probed(unet, calls, asked, 2, weight_of=failing, checkpointing=True)

    def test_calls_are_as_before(self, unet: nn.Module):
        calls = recorded_calls(unet)
        before = [call.copied() for call in calls]
        probed(unet, calls, candidates(["conv_in"], WEIGHTS), 4)
        for call, earlier in zip(calls, before, strict=True):
            assert torch.equal(call.args[0], earlier.args[0])
            assert torch.equal(call.output, earlier.output)


class TestDropout:
    def test_it_is_off(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8)).eval()
        call = call_of(model, torch.randn(2, 8))
        asked = candidates(["0"], WEIGHTS)
        expected = probed(model, [call], asked, 4)
        assert equal(probed(model.train(), [call], asked, 4), expected)


def denoised(denoiser: nn.Module) -> Call:
    text = torch.randn(2, 5, TEXT_WIDTH)
    times = torch.tensor([999, 999])
    return call_of(denoiser, torch.randn(2, 4, 8, 8), timestep=times, encoder_hidden_states=text)


def attention(denoiser: nn.Module) -> nn.Module:
    """A part of the first block that is computed again."""
    return next(part for name, part in denoiser.named_modules() if name.endswith("attn1"))


@pytest.mark.parametrize("make", [tiny_unet, tiny_pixart])
class TestCheckpointing:
    def test_projections_are_the_same(self, make: Callable[[], nn.Module]):
        denoiser = make().eval()
        calls = [denoised(denoiser)]
        asked = candidates(supported(denoiser), WEIGHTS[:1], INPUTS)
        plain, spared = (
            probed(denoiser, calls, asked, 2, checkpointing=checkpointing)
            for checkpointing in (False, True)
        )
        assert equal(plain, spared)

    def test_blocks_are_computed_again(self, make: Callable[[], nn.Module]):
        denoiser = make().eval()
        calls = [denoised(denoiser)]
        asked = candidates(supported(denoiser)[:1], WEIGHTS)
        runs = {False: 0, True: 0}
        block = attention(denoiser)
        for again in runs:

            def count(*_: object, again: bool = again) -> None:
                runs[again] += 1

            with block.register_forward_hook(count):
                probed(denoiser, calls, asked, [Probe(0, None, 0)], checkpointing=again)
        assert runs == {False: 1, True: 2}


class TestJournal:
    @pytest.fixture
    def runs(self, unet: nn.Module) -> list[int]:
        """Backward passes so far, counted by a layer that none of the candidates is."""
        found = [0]

        def count(*_: object) -> None:
            if torch.is_grad_enabled():
                found[0] += 1

        unet.conv_norm_out.register_forward_hook(count)
        return found

    @pytest.fixture
    def asked(self) -> dict[str, LayerCandidates]:
        return candidates(["conv_in", "conv_out"], WEIGHTS, INPUTS)

    def test_only_missing_probes_are_run(self, unet, calls, asked, runs, tmp_path: Path):
        path = tmp_path / "journal.jsonl"
        with Journal(path, {}) as journal:
            probed(unet, calls, asked, 4, journal)
        assert runs == [4]
        with path.open("ab") as file:
            file.write(b'{"unit": "probe of c')  # killed in the middle of a line
        with Journal(path, {}) as journal:
            resumed = probed(unet, calls, asked, 8, journal)
        assert runs == [8]
        assert equal(resumed, probed(unet, calls, asked, 8))

    @pytest.mark.parametrize("after", range(1, 4))
    def test_an_interrupted_run_goes_on(self, unet, calls, asked, runs, tmp_path, after: int):
        path, real = tmp_path / "journal.jsonl", packed_weights(unet)
        arrived = []

        def interrupted(name: str, choice: Choice) -> tuple[Tensor, Tensor | None]:
            arrived.append(name)
            if len(arrived) > 4 * after:  # two layers of two formats each
                raise KeyboardInterrupt
            return real(name, choice)

        with pytest.raises(KeyboardInterrupt), Journal(path, {}) as journal:
            probed(unet, calls, asked, 4, journal, weight_of=interrupted, cache_bytes=0)
        begun = runs[0]
        with Journal(path, {}) as journal:
            resumed = probed(unet, calls, asked, 4, journal)
        assert runs[0] == begun + 4 - after
        assert equal(resumed, probed(unet, calls, asked, 4))

    @pytest.mark.parametrize(
        "other",
        [
            candidates(["conv_in", "conv_out"], (*WEIGHTS, "int8/channel"), INPUTS),
            candidates(["conv_in"], WEIGHTS, INPUTS),
            candidates(["conv_in", "conv_out"], WEIGHTS, ("uint8/token",)),
            {
                **candidates(["conv_in"], WEIGHTS, INPUTS),
                "conv_out": LayerCandidates(WEIGHTS, dynamic(*INPUTS), (SplitInput(2),)),
            },
        ],
        ids=["a format more", "a layer less", "another input", "a structure"],
    )
    def test_other_candidates_are_probed_anew(self, unet, calls, asked, runs, other):
        journal = Journal(None, {})
        probed(unet, calls, asked, 4, journal)
        found = probed(unet, calls, other, 4, journal)
        assert runs == [8]
        assert equal(found, probed(unet, calls, other, 4))

    @pytest.mark.parametrize("field", ["encoding", "plan"])
    def test_so_is_another_base_or_encoding(self, unet, calls, asked, runs, field: str):
        journal = Journal(None, {})
        probed(unet, calls, asked, 4, journal)
        probed(unet, calls, asked, 4, journal, **{field: PLAN if field == "plan" else "feedback"})
        assert runs == [8]

    def test_so_are_other_calls_of_the_same_model(self, unet, calls, asked, runs):
        journal = Journal(None, {})
        one, others = [Probe(0, 0, 0)], calls[::-1]
        probed(unet, calls, asked, one, journal)
        found = probed(unet, others, asked, one, journal)
        assert runs == [2]
        assert equal(found, probed(unet, others, asked, one))

    def test_so_are_other_static_ranges(self, unet, calls, runs):
        journal = Journal(None, {})
        for high in (1.0, 2.0):
            candidate = InputCandidate(
                parse_activation_format("uint8/tensor"), (InputRange(-1.0, high),)
            )
            probed(unet, calls, {"conv_in": LayerCandidates(inputs={"x": candidate})}, 4, journal)
        assert runs == [8]

    def damaged(self, unet, calls, asked, path: Path, field: str, value: str) -> None:
        """Read a journal whose one probe has another value in one field."""
        with Journal(path, {}) as journal:
            probed(unet, calls, asked, 1, journal)

        def changed(_, entries):
            entries[-1][1][field] = json.loads(value)
            return entries

        journals.edit(path, changed)
        with Journal(path, {}) as journal:
            probed(unet, calls, asked, 1, journal)

    @pytest.mark.parametrize("value", ["null", '"much"', "true", "NaN", "{}"])
    def test_a_damaged_number_is_named(self, unet, calls, asked, tmp_path: Path, value: str):
        with pytest.raises(JournalError, match=r"journal.*probe of call.*: energy is"):
            self.damaged(unet, calls, asked, tmp_path / "journal.jsonl", "energy", value)

    @pytest.mark.parametrize("values", [[1.0] * 5, [1.0] * 7, [math.nan] * 6], ids=str)
    def test_so_are_projections_of_other_changes(self, unet, calls, asked, tmp_path, values):
        text = base64.b64encode(np.array(values, "<f4").tobytes()).decode()
        with pytest.raises(JournalError, match=r"journal.*projections are not 6 numbers"):
            self.damaged(
                unet, calls, asked, tmp_path / "journal.jsonl", "projections", json.dumps(text)
            )

    @pytest.mark.parametrize("value", ["null", "[1.0]", '"AAA"', '"%"', '"é"'])
    def test_so_is_what_is_no_base64(self, unet, calls, asked, tmp_path: Path, value: str):
        with pytest.raises(JournalError, match=r"journal.*projections (are not|is)"):
            self.damaged(unet, calls, asked, tmp_path / "journal.jsonl", "projections", value)

    def test_names_are_kept_once_and_a_probe_takes_few_bytes(self, unet, calls, tmp_path: Path):
        path = tmp_path / "journal.jsonl"
        asked = candidates(supported(unet), WEIGHTS, INPUTS)
        with Journal(path, {}) as journal:
            probed(unet, calls, asked, 3, journal)
        _, names, *probes = path.read_text().splitlines()
        listed = {name: [*WEIGHTS, *INPUTS] for name in asked}
        assert json.loads(names)["result"] == listed
        assert len(probes) == 3
        assert all(len(line) < 250 + 6 * 3 * len(asked) for line in probes)


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
    def test_models_of_16_bits_are_probed_as_well(self, dtype: torch.dtype):
        wide, narrow = tiny_unet().eval(), tiny_unet().eval().to(dtype)
        calls = recorded_calls(wide)
        names = supported(wide)[::4]
        asked = candidates(names, WEIGHTS[:1], INPUTS)
        found, expected = (
            probed(
                model,
                [call.to(dtype=model.dtype) for call in calls],
                asked,
                8,
                weight_of=packed_weights(wide),
            )
            for model in (narrow, wide)
        )
        for name in names:
            one, other = (each.noise_of_weight(name, WEIGHTS[0]) for each in (found, expected))
            assert one == pytest.approx(other, rel=0.2)
        # Inputs that differ in their last digits round to other codes: alike on average only.
        ratios = [
            math.log10(
                found.noise_of_input(name, INPUTS[0]) / expected.noise_of_input(name, INPUTS[0])
            )
            for name in names
        ]
        assert abs(np.mean(ratios)) < 0.2


class TestDevices:
    @pytest.mark.parametrize("device", DEVICES)
    def test_every_device_finds_what_float64_on_the_cpu_does(self, device: str):
        exact = tiny_unet().eval()
        weights, calls = packed_weights(copy.deepcopy(exact)), recorded_calls(exact)
        model, exact = copy.deepcopy(exact).to(device), exact.double()
        asked = candidates(supported(exact)[::4], WEIGHTS)
        found, expected = (
            probed(
                each,
                on_device([call.to(dtype=each.dtype) for call in calls], each),
                asked,
                4,
                weight_of=weights,
            )
            for each in (model, exact)
        )
        for name in asked:
            one, other = (each.noise_of_weight(name, WEIGHTS[0]) for each in (found, expected))
            # Convolutions of some devices keep 10 bits of each factor.
            assert one == pytest.approx(other, rel=0.02)


class TestWholeCalls:
    class Mixing(nn.Module):
        """Rows of very different size depend on each other."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            return (y + y.mean(0)) * torch.tensor([[1.0], [100.0]])

    def test_each_row_counts_as_much_as_when_measured(self):
        model = self.Mixing()
        call = call_of(model, torch.randn(2, 6))
        probes = [Probe(0, None, seed) for seed in range(1024)]
        found = probed(model, [call], candidates(["layer"], WEIGHTS[:1]), probes)
        expected = noise(model, LayerChange("layer", Choice(WEIGHTS[0])), [call])
        assert found.noise_of_weight("layer", WEIGHTS[0]) == pytest.approx(expected, rel=0.1)

    def test_they_are_taken_where_rows_are_asked_for_but_depend_on_each_other(self):
        model = self.Mixing()
        call = call_of(model, torch.randn(2, 6))
        asked = candidates(["layer"], WEIGHTS)
        rows = probed(model, [call], asked, [Probe(0, 1, 7)])
        assert equal(rows, probed(model, [call], asked, [Probe(0, None, 7)]))


class Block(nn.Module):
    """A layer with something after it."""

    def __init__(self, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.after = nn.Linear(4, 4), after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.layer(x))


class _OutOfMemory(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 TB")


def infinite_slope(x: Tensor) -> Tensor:
    return x + (0 * x).sqrt()


def without_gradient(x: Tensor) -> Tensor:
    return x.detach()


class TestBadInput:
    ASKED = candidates(["layer"], WEIGHTS, INPUTS)

    def run(self, model: nn.Module, call: Call | None = None, **other: object) -> Projections:
        call = call or call_of(model, torch.randn(2, 4))
        return probed(model, [call], self.ASKED, 2, **other)

    @pytest.mark.parametrize(
        ("after", "message"),
        [
            (infinite_slope, "call 0: layer layer: .* NaN or infinite .*one by one"),
            (_OutOfMemory.apply, "call 0: the backward pass of Block fails .*allocate.*one by one"),
            (without_gradient, "call 0: the backward pass of Block fails .*one by one"),
        ],
        ids=["slope", "memory", "no gradient"],
    )
    def test_where_the_backward_pass_fails_measuring_is_left(self, after, message: str):
        model = Block(after)
        before = state(model)
        with pytest.raises(ProbeError, match=message):
            self.run(model)
        assert_restored(model, before)

    def test_such_an_error_is_one_of_calibration(self):
        assert issubclass(ProbeError, CalibrationError)

    def test_a_ruined_output_is_named_by_its_call(self):
        model = Block(nn.Identity())
        good, bad = (call_of(model, torch.full((1, 4), value)) for value in (1.0, math.nan))
        with pytest.raises(CalibrationError, match="call 1: the denoiser's output holds NaN"):
            probed(model, [good, bad], self.ASKED, [Probe(0, 0, 0), Probe(1, 0, 0)])

    def test_nothing_of_a_failed_probe_is_kept(self):
        model, journal = Block(infinite_slope), Journal(None, {})
        call = call_of(model, torch.randn(2, 4))
        with pytest.raises(ProbeError):
            probed(model, [call], self.ASKED, 2, journal)
        assert not journal.entries

    def test_there_have_to_be_calls(self):
        model = Block(nn.Identity())
        with pytest.raises(CalibrationError, match="no denoiser calls were recorded"):
            probed(model, [], self.ASKED, [Probe(0, 0, 0)])

    def test_there_have_to_be_probes(self):
        model = Block(nn.Identity())
        with pytest.raises(CalibrationError, match="no probes"):
            probed(model, [call_of(model, torch.randn(2, 4))], self.ASKED, [])

    @pytest.mark.parametrize("probe", [Probe(1, 0, 0), Probe(-1, 0, 0), Probe(0, 2, 0)], ids=str)
    def test_probes_are_of_samples_that_there_are(self, probe: Probe):
        model = Block(nn.Identity())
        with pytest.raises(CalibrationError, match="draw probes of these"):
            probed(model, [call_of(model, torch.randn(2, 4))], self.ASKED, [probe])

    def test_an_empty_batch_is_refused(self):
        model = Block(nn.Identity())
        call = call_of(model, torch.randn(0, 4))
        with pytest.raises(CalibrationError, match="draw probes of these"):
            probed(model, [call], self.ASKED, [Probe(0, None, 0)])

    def test_a_static_input_needs_its_range(self):
        static = InputCandidate(parse_activation_format("uint8/tensor"))
        asked = {"layer": LayerCandidates(inputs={"x": static})}
        model = Block(nn.Identity())
        with pytest.raises(FormatError, match="layer layer: uint8/tensor needs a calibrated"):
            probed(model, [call_of(model, torch.randn(2, 4))], asked, 1)

    def test_a_structure_needs_its_tensors(self):
        asked = {"layer": LayerCandidates(WEIGHTS, structures=(ConstantTokens(1),))}
        model = Block(nn.Identity())
        with pytest.raises(FormatError, match="layer layer: constant_tokens needs its calibrated"):
            probed(model, [call_of(model, torch.randn(2, 4, 4))], asked, 1)

    def test_only_layers_that_can_be_packed_are_probed(self):
        model = Block(nn.SiLU())
        with pytest.raises(PlanError, match="layer after is a SiLU"):
            probed(model, [call_of(model, torch.randn(2, 4))], candidates(["after"], WEIGHTS), 1)

    def test_a_layer_stands_under_one_name(self):
        model = Block(nn.Identity())
        model.other = model.layer
        asked = candidates(["layer", "other"], WEIGHTS)
        with pytest.raises(PlanError, match="layer other is layer under another name"):
            probed(model, [call_of(model, torch.randn(2, 4))], asked, 1)

    def test_the_plan_has_the_same_structures(self):
        plan = Plan({"layer": Choice("int4/channel", structures=(SplitInput(2),))})
        with pytest.raises(PlanError, match="layer layer: has split at 2 in the plan"):
            self.run(Block(nn.Identity()), plan=plan)

    def test_formats_are_known(self):
        with pytest.raises(FormatError, match="int99"):
            LayerCandidates(("int99/channel",))


def test_probes_run_within_inference_mode(unet: nn.Module, calls: tuple[Call, ...]):
    asked = candidates(["conv_in"], WEIGHTS, INPUTS)
    expected = probed(unet, calls, asked, draw_probes(calls, 2))
    with torch.no_grad():
        assert equal(probed(unet, calls, asked, 2), expected)
    with torch.inference_mode():
        assert equal(probed(unet, calls, asked, 2), expected)


class TestShortMemory:
    @pytest.mark.parametrize(("free", "runs"), [(2**40, 1), (2**16, 2), (None, 1)])
    def test_blocks_are_computed_again_where_free_memory_is_short(
        self, monkeypatch: pytest.MonkeyPatch, free: int | None, runs: int
    ):
        monkeypatch.setattr(checkpointing, "free_bytes", lambda device: free)
        denoiser = tiny_unet().eval()
        call, found = denoised(denoiser), []

        def count(*_: object) -> None:
            if torch.is_grad_enabled():
                found.append(1)

        with attention(denoiser).register_forward_hook(count):
            probed(denoiser, [call], candidates(["conv_in"], WEIGHTS), [Probe(0, 0, 0)])
        assert len(found) == runs

    def test_modules_that_have_no_such_blocks_are_left_alone(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(checkpointing, "free_bytes", lambda device: 0)
        model = nn.Sequential(nn.Linear(4, 4))
        call = call_of(model, torch.randn(2, 4))
        asked = candidates(["0"], WEIGHTS)
        expected = probed(model, [call], asked, 2)
        assert equal(probed(model, [call], asked, 2, checkpointing=True), expected)


class TestKeptChanges:
    @pytest.mark.parametrize("plan", [None, PLAN], ids=["floating", "plan"])
    @pytest.mark.parametrize("cache_bytes", [0, 2000, None])
    def test_projections_are_the_same_with_any_memory(
        self, unet: nn.Module, calls: tuple[Call, ...], plan: Plan | None, cache_bytes: int | None
    ):
        asked = candidates(["conv_in", "conv_out", "time_embedding.linear_1"], WEIGHTS)
        expected = probed(unet, calls, asked, 4, plan=plan)
        found = probed(unet, calls, asked, 4, plan=plan, cache_bytes=cache_bytes)
        assert equal(found, expected)

    @pytest.mark.parametrize(("cache_bytes", "decoded"), [(None, 2), (0, 8), (16 * 4, 5)])
    def test_what_fits_is_decoded_once(self, cache_bytes: int | None, decoded: int):
        model = nn.Sequential(nn.Linear(4, 4))
        call, real = call_of(model, torch.randn(2, 4)), packed_weights(model)
        asked = []

        def weight_of(name: str, choice: Choice) -> tuple[Tensor, Tensor | None]:
            asked.append(choice.weight)
            return real(name, choice)

        given = candidates(["0"], WEIGHTS)
        probed(model, [call], given, 4, weight_of=weight_of, cache_bytes=cache_bytes)
        assert len(asked) == decoded

    @pytest.mark.parametrize("checkpointing", [False, True])
    def test_no_gradient_waits_for_another(self, checkpointing: bool):
        denoiser = tiny_unet().eval()
        call, real = denoised(denoiser), packed_weights(denoiser)
        waiting = []

        def weight_of(name: str, choice: Choice) -> tuple[Tensor, Tensor | None]:
            weights = (each for name, each in denoiser.named_parameters() if "weight" in name)
            waiting.append(sum(each.grad is not None for each in weights))
            return real(name, choice)

        asked = candidates(supported(denoiser), WEIGHTS[:1])
        probed(denoiser, [call], asked, 1, weight_of=weight_of, checkpointing=checkpointing)
        assert len(waiting) == len(asked)
        assert not any(waiting)

    def test_there_is_no_negative_memory(self, unet: nn.Module, calls: tuple[Call, ...]):
        with pytest.raises(UsageError, match="cache_bytes: -1 is negative"):
            probed(unet, calls, candidates(["conv_in"], WEIGHTS), cache_bytes=-1)
