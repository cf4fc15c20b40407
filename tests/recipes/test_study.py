"""One study of a denoiser, of a pipeline or of a module with calls, for any recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

import mezzotint as mz
from mezzotint.errors import CalibrationError, JournalError, ModelError, UsageError
from mezzotint.measuring import Figures, InProcess, LayerChange, Noise, Original, Task
from mezzotint.models import find_denoiser
from mezzotint.recipes import Job, Keeping, Study, chosen_recipe
from mezzotint.runtime import ConstantTokens, SplitInput

BUDGET = mz.Budget(weight_bits=5)


@pytest.fixture
def job(pipe, sampling) -> Job:
    return Job(find_denoiser(pipe)[1], "tiny", BUDGET, pipe, replace(sampling, steps=1))


def study(job: Job, **switches: object) -> Study:
    return Study.of(job, **{"bos": True, "shortcuts": "shortcuts", **switches})


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
        found = study(job)
        plan = mz.Plan({"conv_in": mz.Choice("int8/channel", "uint8/tensor")})
        settings = found.settled(plan, 0.5).calibration
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
        found = study(replace(job, keeping=Keeping(path)))
        change = LayerChange("conv_in", mz.Choice("int4/channel"))
        with found.measuring(found.calibrated({})) as measuring:
            (loss,) = measuring.losses([change], Noise())
        assert measuring.journal.record.entries == {Task(change, Noise()).key: {"noise": loss}}
        assert {"model", "sampling", "calls", "momentum", "torch"} == set(measuring.journal.header)
        job.denoiser.conv_in.bias.data[0] += 1
        changed = study(replace(job, keeping=Keeping(path)))
        with (
            pytest.raises(JournalError, match="was begun with model"),
            changed.measuring(changed.calibrated({})),
        ):
            pass

    def test_images_are_part_of_what_figures_depend_on_where_they_are_compared(self, job):
        found = study(job)
        with found.measuring(found.calibrated({}), images=True) as measuring:
            assert measuring.journal.header["images"] == measuring.original.images.digest

    def test_another_executor_runs_the_tasks_of_a_recipe(self, job):
        made = []

        @dataclass(frozen=True)
        class Reversed:
            original: Original

            def figures(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Figures]]:
                made.append(len(tasks))
                for task in reversed(tasks):
                    yield from InProcess(self.original).figures([task])

        recipe, options = chosen_recipe(mz.Auto(formats=("int4/channel", "int8/channel")))
        expected = recipe.run(replace(job, budget=mz.Budget(6)), options)
        found = recipe.run(
            replace(job, budget=mz.Budget(6), keeping=Keeping(executor=Reversed)), options
        )
        assert found.plan == expected.plan
        assert found.measurements == expected.measurements
        assert made == [2 * len(found.plan)]


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
