"""One study of a denoiser, of a pipeline or of a module with calls, for any recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

import mezzotint as mz
from mezzotint.errors import CalibrationError, JournalError, ModelError, UsageError
from mezzotint.measuring import (
    Figures,
    InProcess,
    InputChange,
    LayerChange,
    Noise,
    Original,
    PlanChange,
    Similarity,
    Task,
)
from mezzotint.models import find_denoiser
from mezzotint.recipes import Job, MeasuringSettings, Study
from mezzotint.runtime import ConstantTokens, SplitInput

BUDGET = mz.Budget(weight_bits=5)


@pytest.fixture
def job(pipe, sampling) -> Job:
    return Job(find_denoiser(pipe)[1], "tiny", BUDGET, pipe, replace(sampling, steps=1))


def study(job: Job, **switches: object) -> Study:
    return Study.of(job, **{"bos": True, "shortcuts": "shortcuts", "momentum": None, **switches})


class TestPipeline:
    def test_calls_are_recorded_and_layers_come_in_the_order_of_execution(self, job):
        found = study(job)
        assert [call.timestep for call in found.calls] == [
            call.timestep for call in mz.record_calls(job.pipe, job.sampling)
        ]
        names = [layer.name for layer in found.layers]
        runs = list(dict.fromkeys(node.name for node in found.graph.runs))
        assert names == [name for name in runs if name in names]
        assert names[0] == "time_embedding.linear_1"

    def test_a_few_calls_are_kept_of_a_long_run(self, job):
        job = replace(job, sampling=replace(job.sampling, steps=9))
        assert len(study(job).calls) == 9
        few = study(job, selection=mz.CallSelection(calls=3, samples=1))
        assert [(call.step, len(call.output)) for call in few.calls] == [(1, 1), (4, 1), (7, 1)]
        plan = mz.Plan({"conv_in": mz.Choice("int8/channel", "uint8/tensor")})
        settings = few.settled(plan).calibration
        assert (settings.calls, settings.selection) == (3, mz.CallSelection(3, 1))

    @pytest.mark.parametrize("calls", [None, 8], ids=["all", "few"])
    def test_given_calls_are_all_taken(self, job, calls):
        given = mz.record_calls(job.pipe, replace(job.sampling, steps=10))
        brief = {"probes": 4, "regret": 1e9, "exchanges": False}
        recipe = mz.Auto(formats=("int8/channel",), calls=calls, **brief)
        found = mz.quantize(job.pipe, recipe, mz.Budget(9), calls=given)
        assert found.plan.context["calls"]["count"] == 10

    def test_given_calls_take_their_place(self, job):
        calls = mz.record_calls(job.pipe, mz.Sampling(("tree", "house"), steps=1))
        found = study(replace(job, calls=calls))
        assert len(found.calls) == len(calls)
        assert torch.equal(found.calls[0].output, calls[0].output)
        assert found.context()["calls"]["count"] == len(calls)
        assert "calls" not in study(job).context()

    def test_every_switch_leaves_its_structure_out(self, job):
        kinds = {
            switch: {type(each) for tuple_ in found.structures.by_layer.values() for each in tuple_}
            for switch, found in {
                "none": study(job, bos=False, shortcuts="none"),
                "bos": study(job, shortcuts="none"),
                "shortcuts": study(job, bos=False),
                "both": study(job),
            }.items()
        }
        assert kinds == {
            "none": set(),
            "bos": {ConstantTokens},
            "shortcuts": {SplitInput},
            "both": {ConstantTokens, SplitInput},
        }

    def test_only_static_inputs_are_calibrated(self, job):
        found = study(job)
        dynamic, static = mz.Choice("int8/channel"), mz.Choice("int8/channel", "uint8/tensor")
        assert not found.calibrated(found.structured([dynamic])).input_ranges
        ranges = found.calibrated(found.structured([dynamic, static])).input_ranges
        assert set(ranges) == {layer.name for layer in found.layers}
        for name, structures in found.structures.by_layer.items():
            assert len(ranges[name]) == 1 + (SplitInput in map(type, structures))

    def test_plans_name_what_they_were_calibrated_on(self, job):
        found = study(job, momentum=0.5)
        plan = mz.Plan({"conv_in": mz.Choice("int8/channel", "uint8/tensor")})
        settings = found.settled(plan).calibration
        assert (settings.sampling, settings.calls, settings.momentum) == (job.sampling, 1, 0.5)
        given = study(replace(job, calls=found.calls)).settled(plan).calibration
        assert (given.sampling, given.calls) == (None, 1)

    def test_nan_is_found_before_anything_is_measured(self, job):
        job.denoiser.conv_out.weight.data[0] = torch.nan
        with pytest.raises(CalibrationError, match="layer conv_out"):
            study(job)


class TestMeasuring:
    def test_figures_are_journaled_under_the_model_and_its_calls(self, job, tmp_path):
        path = tmp_path / "journal.jsonl"
        found = study(replace(job, measuring=MeasuringSettings(path)))
        change = LayerChange("conv_in", mz.Choice("int4/channel"))
        with found.measuring(found.calibrated({})) as measuring:
            (loss,) = measuring.losses([change], Noise())
        assert measuring.journal.record.entries == {Task(change, Noise()).key: {"noise": loss}}
        assert {"model", "sampling", "calls", "torch", "formats"} == set(measuring.journal.header)
        job.denoiser.conv_in.bias.data[0] += 1
        changed = study(replace(job, measuring=MeasuringSettings(path)))
        with (
            pytest.raises(JournalError, match="was begun with model"),
            changed.measuring(changed.calibrated({})),
        ):
            pass

    def test_images_are_part_of_the_key_where_they_are_compared(self, job):
        found, change = study(job), LayerChange("conv_in", mz.Choice("int4/channel"))
        with found.measuring(found.calibrated({})) as measuring:
            measuring.losses([change], Similarity())
            measuring.losses([change], Noise())
        by_images, by_outputs = measuring.journal.entries
        digest = measuring.original.images.digest
        assert by_images == f"{Task(change, Similarity()).key} | images {digest}"
        assert by_outputs == Task(change, Noise()).key

    @pytest.mark.parametrize("momentum", [None, 0.5])
    def test_the_momentum_is_part_of_the_key_where_a_range_is_static(self, job, momentum):
        found = study(job, momentum=momentum)
        static, dynamic = (
            mz.Choice("int8/channel", f"int8/{each}") for each in ("tensor", "token")
        )
        changes = [
            kind("conv_in", choice)
            for kind in (LayerChange, InputChange)
            for choice in (static, dynamic)
        ]
        changes += [PlanChange(mz.Plan({"conv_in": choice})) for choice in (static, dynamic)]
        with found.measuring(found.calibrated({"conv_in": [static]})) as measuring:
            measuring.losses(changes, Noise())
        told = "momentum none" if momentum is None else "momentum 0.5"
        named = {key for key in measuring.journal.entries if key.endswith(told)}
        assert named == {f"{Task(change, Noise()).key} | {told}" for change in changes[::2]}

    def test_another_executor_runs_the_tasks_of_a_recipe(self, job):
        made = []

        @dataclass(frozen=True)
        class Reversed:
            original: Original

            def figures(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Figures]]:
                made.append(len(tasks))
                for task in reversed(tasks):
                    yield from InProcess(self.original).figures([task])

        recipe = mz.Auto(
            formats=("int4/channel", "int8/channel"),
            inputs=("int8/token", "float"),
            sensitivity="measured",
            smoothing=False,
        )
        expected = mz.quantize(job.pipe, recipe, mz.Budget(6), sampling=job.sampling)
        found = mz.quantize(
            job.pipe, recipe, mz.Budget(6), sampling=job.sampling, executor=Reversed
        )
        assert found.plan == expected.plan
        assert found.measurements == expected.measurements
        formats_of_layers, plans = 3 * len(found.plan), 2
        assert made == [formats_of_layers, plans]


class _Silent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class TestModule:
    def test_it_needs_calls(self, job):
        with pytest.raises(UsageError, match="calls: none given"):
            study(replace(job, pipe=None, sampling=None))

    def test_something_must_be_there_to_quantize(self):
        module = nn.Sequential(_Silent(), nn.Embedding(3, 2))
        calls = [((torch.tensor([[1]]),), {})]
        with pytest.raises(ModelError, match="no Linear or Conv2d layer"):
            mz.quantize_module(module, calls)
