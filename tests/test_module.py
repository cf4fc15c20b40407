"""Denoisers that diffusers does not know, and pipelines that need more than a prompt."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DiTPipeline
from torch import Tensor, nn

import mezzotint as mz
from mezzotint._journal import Record
from mezzotint.errors import (
    CalibrationError,
    InfeasibleBudgetError,
    JournalError,
    ModelError,
    UsageError,
)
from mezzotint.measuring import InProcess, Noise, Original
from mezzotint.models import Call
from mezzotint.runtime import PackedLayer, module_bytes, packed_layers
from tests.measuring.metrics.test_registry import LargestError
from tests.models import tiny
from tests.recipes.watching import watched


class Denoiser(nn.Module):
    """Reads a skip connection, and a second input by keyword."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.Conv2d(4, 16, 3, padding=1)
        self.middle = nn.Conv2d(16, 16, 3, padding=1)
        self.embed = nn.Linear(8, 16)
        self.shortcut = nn.Conv2d(32, 16, 1)
        self.up = nn.Conv2d(16, 4, 3, padding=1)

    def forward(self, x: Tensor, *, label: Tensor) -> Tensor:
        first = self.down(x).relu()
        second = self.middle(first + self.embed(label)[:, :, None, None]).relu()
        return self.up(self.shortcut(torch.cat([second, first], 1)))


def examples(count: int = 3) -> list[tuple[tuple[Tensor, ...], dict[str, Tensor]]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            (torch.randn(2, 4, 8, 8, generator=generator),),
            {"label": torch.randn(2, 8, generator=generator)},
        )
        for _ in range(count)
    ]


BUDGET = mz.Budget(weight_bits=5)


@pytest.fixture
def module() -> Denoiser:
    return Denoiser().eval()


class InPlace(Denoiser):
    """Scales its input in place before it reads it."""

    def forward(self, x: Tensor, *, label: Tensor) -> Tensor:
        return super().forward(x.mul_(0.5), label=label)


class TestInputsChangedInPlace:
    def test_the_callers_tensors_stay_as_they_are(self):
        given = examples()
        mz.quantize_module(InPlace().eval(), given, budget=BUDGET)
        for (args, kwargs), (others, words) in zip(given, examples(), strict=True):
            assert torch.equal(args[0], others[0])
            assert torch.equal(kwargs["label"], words["label"])

    def test_figures_are_those_of_the_same_model_without(self, module: Denoiser):
        halves = [((args[0] * 0.5,), kwargs) for args, kwargs in examples()]
        expected = mz.quantize_module(module, halves, budget=BUDGET)
        found = mz.quantize_module(InPlace().eval(), examples(), budget=BUDGET)
        assert found.measurements == expected.measurements
        assert found.plan.choices == expected.plan.choices

    @torch.no_grad()
    def test_calls_are_recorded_as_they_were_given(self):
        module = InPlace().eval()
        with mz.recording(module) as calls:
            for args, kwargs in examples():
                module(*args, **kwargs)
        for call, (args, _) in zip(calls, examples(), strict=True):
            assert torch.equal(call.args[0], args[0])
            assert torch.equal(call.run(module), call.output)


class TestQuantizeModule:
    def test_it_packs_a_copy_within_the_budget(self, module: Denoiser):
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        result = mz.quantize_module(module, examples(), budget=BUDGET)
        assert set(packed_layers(result.module)) == set(result.plan.quantized)
        layers = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        assert set(result.plan.choices) == {"down", "middle", "embed", "shortcut", "up"}
        stored = sum(
            b.nbytes for each in packed_layers(result.module).values() for b in each.buffers()
        )
        assert stored * 8 <= 5 * sum(layer.weight.numel() for layer in layers)
        assert module_bytes(result.module) < module_bytes(module) / 3
        assert not packed_layers(module)
        assert all(torch.equal(before[n], t) for n, t in module.state_dict().items())

    def test_the_copy_computes_nearly_the_same(self, module: Denoiser):
        result = mz.quantize_module(module, examples(), budget=mz.Budget(weight_bits=12))
        (args, kwargs), *_ = examples()
        with torch.no_grad():
            y, y_hat = module(*args, **kwargs), result.module(*args, **kwargs)
        assert float((y - y_hat).square().sum() / y.square().sum()) < 1e-3
        assert not torch.equal(y, y_hat)

    def test_every_pair_of_formats_of_every_layer_has_its_loss(self, module: Denoiser):
        recipe = mz.Auto()
        found = mz.quantize_module(module, examples(), recipe, BUDGET).measurements
        assert {len(choices) for choices in found.values()} == {3 * len(recipe.formats)}
        assert all(one["weight"] > 0 for each in found.values() for one in each.values())
        for each in found.values():
            for choice, one in each.items():
                assert (one["input"] > 0) == (choice.activation != "float")
                assert one["noise"] == one["weight"] + one["input"]

    def test_the_plan_predicts_less_noise_than_the_uniform_one_of_the_same_bytes(
        self, module: Denoiser
    ):
        uniform = mz.uniform_plan(module, weight_bits=4, act_bits=8)
        size = module_bytes(mz.quantize_denoiser(copy.deepcopy(module), weight_bits=4, act_bits=8))
        ours = mz.quantize_module(module, examples(), budget=mz.Budget(size=size))

        def noise(plan: mz.Plan) -> float:
            return sum(ours.measurements[name][plan[name]]["noise"] for name in plan)

        assert noise(ours.plan) < noise(uniform)

    def test_recorded_calls_are_as_good_as_arguments(self, module: Denoiser):
        with mz.recording(module) as calls, torch.no_grad():
            for args, kwargs in examples():
                module(*args, **kwargs)
        by_calls = mz.quantize_module(module, calls, budget=BUDGET)
        assert by_calls.plan == mz.quantize_module(module, examples(), budget=BUDGET).plan

    def test_calls_decide(self, module: Denoiser):
        # A channel that is always zero makes its weights worthless.
        silent = [((args[0] * 0,), kwargs) for args, kwargs in examples()]
        plans = [
            mz.quantize_module(module, calls, budget=mz.Budget(weight_bits=4.2)).plan
            for calls in (examples(), silent)
        ]
        assert plans[0].choices != plans[1].choices

    def test_joined_inputs_are_split_on_demand(self, module: Denoiser):
        recipe = mz.Auto(shortcuts="concatenations")
        plan = mz.quantize_module(module, examples(), recipe, budget=mz.Budget(8)).plan
        assert [name for name, choice in plan.choices.items() if choice.structures] == ["shortcut"]

    def test_mixdq_solves_one_program_by_outputs(self, module: Denoiser):
        recipe = mz.MixDQ(metric="sqnr", protect=0.0)
        result = mz.quantize_module(module, examples(), recipe, budget=mz.Budget(weight_bits=6))
        assert {choice.activation for choice in result.plan.choices.values()} == {"uint8/tensor"}
        with pytest.raises(UsageError, match=r"decoupled compares images.*use sqnr"):
            mz.quantize_module(module, examples(), "mixdq")

    def test_each_metric_has_the_plan_that_is_best_by_it(self, module: Denoiser):
        metrics = (Noise(), LargestError())
        results = [
            mz.quantize_module(module, examples(), mz.Auto(metric=metric.kind), mz.Budget(5.0))
            for metric in metrics
        ]
        assert results[0].plan.choices != results[1].plan.choices
        for metric, own in zip(metrics, results, strict=True):
            losses = [
                sum(own.measurements[name][plan[name]][metric.kind] for name in plan)
                for plan in (result.plan for result in results)
            ]
            assert losses[results.index(own)] == min(losses)
        assert results[1].plan.context["predicted_worst-error_loss"] > 0

    def test_metrics_of_images_need_a_pipeline(self, module: Denoiser):
        with pytest.raises(UsageError, match="a bare denoiser does not make"):
            mz.quantize_module(module, examples(), mz.Auto(metric="ssim"))

    def test_measurements_are_journaled_and_taken_up_again(
        self, module: Denoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        first = mz.quantize_module(
            module, examples(), budget=BUDGET, journal=tmp_path / "journal.jsonl"
        )
        first.record.write(tmp_path / "kept.jsonl")
        asked = watched(monkeypatch)
        for file in ({"journal": "journal.jsonl"}, {"measurements": "kept.jsonl"}):
            ((argument, name),) = file.items()
            again = mz.quantize_module(
                module, examples(), budget=BUDGET, **{argument: tmp_path / name}
            )
            assert again.plan == first.plan
        assert asked == []
        with pytest.raises(JournalError, match="of other calls"):
            mz.quantize_module(module, examples(2), measurements=tmp_path / "kept.jsonl")

    def test_another_executor_measures_the_same(self, module: Denoiser):
        given: list[Original] = []

        def make(original: Original) -> InProcess:
            given.append(original)
            return InProcess(original, cache_bytes=0)

        usual = mz.quantize_module(module, examples(), budget=BUDGET)
        other = mz.quantize_module(module, examples(), budget=BUDGET, executor=make)
        assert [original.denoiser for original in given] == [module]
        assert (other.plan, other.measurements) == (usual.plan, usual.measurements)

    @pytest.mark.parametrize(
        ("calls", "told"),
        [
            ([], "calls: none given"),
            ([torch.ones(1)], "calls: number 0 is a Tensor; give recorded calls, or pairs"),
            ([(torch.ones(1), {})], "calls: number 0 is a tuple"),
            (
                [((torch.ones(0, 4, 8, 8),), {"label": torch.ones(0, 8)})],
                "calls: number 0 has an empty output",
            ),
        ],
        ids=["none", "a tensor", "no tuple", "no sample"],
    )
    def test_what_is_no_call_is_refused(self, module: Denoiser, calls: list, told: str):
        with pytest.raises(UsageError, match=told):
            mz.quantize_module(module, calls)

    def test_an_infeasible_budget_is_refused(self, module: Denoiser):
        with pytest.raises(InfeasibleBudgetError, match="bits per weight or more"):
            mz.quantize_module(module, examples(), budget=mz.Budget(weight_bits=1))

    def test_a_latency_needs_a_profile(self, module: Denoiser):
        with pytest.raises(UsageError, match="latency: a bare module is not profiled"):
            mz.quantize_module(module, examples(), budget=mz.Budget(latency="0.5x"))

    def test_nan_names_the_layer(self, module: Denoiser):
        module.middle.weight.data[0] = torch.nan
        with pytest.raises(CalibrationError, match="layer middle"):
            mz.quantize_module(module, examples())

    def test_a_module_in_training_is_quantized_as_it_is_used(self):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(4, 16, 3), nn.BatchNorm2d(16), nn.Dropout(0.5), nn.Conv2d(16, 4, 3)
        )
        before = {name: each.clone() for name, each in module.state_dict().items()}
        calls = [((args[0],), {}) for args, _ in examples()]
        result = mz.quantize_module(module, calls, budget=BUDGET)
        assert module.training
        assert all(torch.equal(each, before[name]) for name, each in module.state_dict().items())
        assert (
            result.plan.choices
            == mz.quantize_module(module.eval(), calls, budget=BUDGET).plan.choices
        )

    def test_a_quantized_module_is_refused(self, module: Denoiser):
        result = mz.quantize_module(module, examples(), budget=BUDGET)
        with pytest.raises(UsageError, match="quantized already"):
            mz.quantize_module(result.module, examples())


class TestCallsOfAPipeline:
    """A class-conditional pipeline: it takes no prompt, so sampling cannot run it."""

    @pytest.fixture
    def pipe(self) -> DiTPipeline:
        pipe = DiTPipeline(tiny.tiny_dit(), tiny.tiny_vae(), DDIMScheduler())
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @staticmethod
    def run(pipe: DiTPipeline) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        output = pipe(
            [1, 2],
            guidance_scale=1.0,
            num_inference_steps=2,
            generator=generator,
            output_type="np",
        )
        return torch.from_numpy(output.images)

    def test_whoever_can_run_it_can_quantize_it(self, pipe: DiTPipeline):
        before = self.run(pipe)
        with mz.recording(pipe) as calls:
            self.run(pipe)
        assert len(calls) == 2
        assert [call.step for call in calls] == [0, 1]
        result = mz.quantize(pipe, budget=mz.Budget(weight_bits=8.5), calls=calls)
        assert isinstance(result.denoiser.get_submodule("proj_out_2"), PackedLayer)
        after = self.run(result.pipeline)
        assert 0 < float((before - after).abs().mean()) < 0.05
        assert result.plan.context["calls"]["count"] == 2

    def test_its_plan_cannot_be_calibrated_again_without_the_calls(self, pipe: DiTPipeline):
        with mz.recording(pipe) as calls:
            self.run(pipe)
        recipe = mz.Auto(formats=("int8/channel",), activation="uint8/tensor")
        plan = mz.quantize(pipe, recipe, mz.Budget(weight_bits=16), calls=calls).plan
        assert (plan.calibration.sampling, plan.calibration.calls) == (None, 2)
        with pytest.raises(CalibrationError, match="on 2 calls of the denoiser which it does not"):
            mz.apply(pipe, plan)

    def test_without_calls_it_cannot_be_run(self, pipe: DiTPipeline):
        with pytest.raises(mz.MezzotintError, match="DiTPipeline fails on its own call"):
            mz.quantize(pipe)

    def test_recording_ends_with_the_block(self, pipe: DiTPipeline):
        with mz.recording(pipe) as calls:
            pass
        self.run(pipe)
        assert calls == []
        assert not pipe.transformer._forward_hooks


def test_recording_a_run_by_prompts_equals_recording_by_sampling():
    pipe = tiny.tiny_stable_diffusion()
    sampling = mz.Sampling(("owl", "fox"), steps=2, guidance=1.0)
    expected = mz.record_calls(pipe, sampling)
    with mz.recording(pipe) as calls:
        mz.generate(pipe, sampling)
    for one, other in zip(expected, calls, strict=True):
        assert isinstance(other, Call)
        assert (one.step, one.timestep) == (other.step, other.timestep)
        assert torch.equal(one.output, other.output)


class Returning(nn.Module):
    """Gives what a function makes of a Linear's output."""

    def __init__(self, make: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.layer, self.make = nn.Linear(8, 8), make

    def forward(self, x: Tensor) -> object:
        return self.make(self.layer(x))


X = [((torch.ones(2, 8),), {})]


class TestArguments:
    @pytest.mark.parametrize(
        ("make", "why"),
        [
            (lambda y: {"sample": y}, "dict without a first tensor"),
            (lambda y: None, "NoneType without a first tensor"),
            (lambda y: (), "tuple without a first tensor"),
            (lambda y: ((y,),), "tuple where a tensor is expected"),
            (lambda y: y.argmax(-1), "int64 where a floating one is expected"),
        ],
        ids=["dictionary", "nothing", "empty tuple", "nested", "integers"],
    )
    def test_outputs_without_a_floating_tensor(self, make: Callable[[Tensor], object], why: str):
        with pytest.raises(ModelError, match=why):
            mz.quantize_module(Returning(make), X)

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            (nn.Linear(8, 8), "module: is itself a Linear.*nn.Sequential"),
            (nn.Sequential(nn.Linear(8, 8)).to("meta"), "module: 0.weight stands on the meta"),
            ("unet", "module: is a str"),
        ],
        ids=["layer", "meta", "text"],
    )
    def test_modules_that_cannot_be_packed(self, given: nn.Module, why: str):
        with pytest.raises(UsageError, match=why):
            mz.quantize_module(given, X)

    def test_a_module_without_parameters_has_nothing_to_quantize(self):
        with pytest.raises(ModelError, match="no Linear or Conv2d layer to quantize"):
            mz.quantize_module(nn.ReLU(), X)

    @pytest.mark.parametrize(
        ("calls", "why"),
        [
            (None, "calls: is None"),
            (5, "calls: is a int"),
            ([((), {"y": torch.ones(2, 8)})], r"calls: Sequential fails on number 0 \(.*'y'"),
            ([((torch.ones(2, 7),), {})], r"calls: Sequential fails on number 0 \(mat1"),
        ],
        ids=["none", "number", "name", "shape"],
    )
    def test_calls_that_the_module_does_not_take(self, calls: Any, why: str):
        with pytest.raises(UsageError, match=why):
            mz.quantize_module(nn.Sequential(nn.Linear(8, 8)), calls)

    def test_a_budget_is_no_number(self, module: Denoiser):
        with pytest.raises(UsageError, match="budget: is 4; give Budget"):
            mz.quantize_module(module, examples(), budget=4)

    def test_a_journal_is_no_folder(self, module: Denoiser, tmp_path: Path):
        with pytest.raises(JournalError, match="is a folder; name a file"):
            mz.quantize_module(module, examples(), journal=tmp_path)

    def test_a_record_is_written_to_a_path_given_as_text(self, module: Denoiser, tmp_path: Path):
        result = mz.quantize_module(module, examples(1), budget=BUDGET)
        result.record.write(str(tmp_path / "record.jsonl"))
        assert Record.read(tmp_path / "record.jsonl") == result.record

    def test_only_modules_and_pipelines_can_be_recorded(self):
        with pytest.raises(UsageError, match="source: is a str"), mz.recording("x"):
            pass

    @pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
    @pytest.mark.parametrize(
        "norm", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm], ids=["new", "old"]
    )
    def test_a_layer_that_computes_its_weight_stays_floating(self, norm: Any):
        model = nn.Sequential(norm(nn.Linear(8, 8)), nn.Linear(8, 8))
        assert set(mz.quantize_module(model, X, budget=mz.Budget(weight_bits=12)).plan) == {"1"}


class Tied(nn.Module):
    """One layer under two names, the second inside a block."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(16, 16)
        self.second = self.first
        self.block = nn.Sequential(self.first, nn.Linear(16, 16))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.second(self.first(x).relu()))


def test_a_layer_of_several_names_is_packed_under_all():
    calls = [((torch.randn(4, 16, generator=torch.Generator().manual_seed(2)),), {})]
    module = Tied().eval()
    result = mz.quantize_module(module, calls, budget=mz.Budget(weight_bits=8))
    assert isinstance(result.module.first, PackedLayer)
    assert result.module.block[0] is result.module.second is result.module.first
    assert module.block[0] is module.second is module.first
    assert type(module.first) is nn.Linear
