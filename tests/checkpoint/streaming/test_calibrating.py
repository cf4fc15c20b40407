"""Calibrated on calls, a checkpoint is packed from disk to disk as it is in memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

import mezzotint as mz
from mezzotint.calibration import calibrated
from mezzotint.checkpoint.streaming import PlanWithCalls, packed_checkpoint
from mezzotint.errors import CalibrationError, PlanError, UsageError
from mezzotint.formats import MINMAX
from mezzotint.models import Call, record_calls
from mezzotint.runtime import pack_module
from tests.checkpoint import packed
from tests.checkpoint.streaming.float_models import stored

FEEDBACK = mz.Encoding(MINMAX, "feedback", bias_correction=True)


@pytest.fixture(scope="module")
def calls(pipeline: Path) -> tuple[Call, ...]:
    return record_calls(mz.load(pipeline), mz.Sampling(("owl", "red heart")))


def plan_for(pipeline: Path) -> mz.Plan:
    """Of layers with constant tokens, splits, static ranges, feedback, and corrected biases."""
    choices = packed.structured_plan(mz.load(pipeline).unet, *packed.CHOICES[:-1]).choices
    others = {"conv_in": mz.Encoding(MINMAX), "conv_out": mz.Encoding(bias_correction=True)}
    return mz.Plan(choices, encoding=FEEDBACK, encodings=others)


def test_the_tensors_are_those_of_packing_in_memory(
    pipeline: Path, target: Path, calls: tuple[Call, ...]
):
    plan = plan_for(pipeline)
    written = mz.quantize_checkpoint(pipeline, target, plan=PlanWithCalls(plan, calls))
    model = mz.load(pipeline).unet
    pack_module(model, plan, calibrated(model, plan, calls))
    assert written.plan == plan
    assert packed.same(stored(target / "unet"), model.state_dict())


def test_half_precision_is_calibrated_as_it_is_stored(
    tmp_path: Path, target: Path, calls: tuple[Call, ...]
):
    model = packed.tiny.tiny_unet().to(torch.bfloat16).eval()
    model.save_pretrained(tmp_path / "half")
    plan = mz.Plan({"conv_out": mz.Choice("int3/channel")}, encoding=FEEDBACK)
    mz.quantize_checkpoint(tmp_path / "half", target, plan=PlanWithCalls(plan, calls))
    half = [call.to(dtype=torch.bfloat16) for call in calls]
    pack_module(model, plan, calibrated(model, plan, half))
    assert packed.same(stored(target), model.state_dict())
    assert UNet2DConditionModel.from_pretrained(target, torch_dtype=torch.bfloat16) is not None


def test_an_interrupted_job_goes_on_with_the_same_calls_only(
    pipeline: Path, target: Path, calls: tuple[Call, ...], monkeypatch: pytest.MonkeyPatch
):
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    def left_by(some: tuple[Call, ...]) -> set[Path]:
        """Folders beside the output after an interruption at the end."""
        with pytest.raises(KeyboardInterrupt):
            mz.quantize_checkpoint(pipeline, target, plan=PlanWithCalls(plan, some))
        return set(target.parent.iterdir())

    monkeypatch.setattr(packed_checkpoint, "write_index", stop)
    plan = mz.Plan({"conv_out": mz.Choice("int3/channel")}, encoding=FEEDBACK)
    left = left_by(calls)
    assert left_by(calls) == left
    assert len(left_by(calls[:1]) - left) == 1


class TestRefusals:
    def test_without_calls_the_plan_is_refused_with_the_remedy(self, pipeline: Path, target: Path):
        plan = mz.Plan({"conv_in": mz.Choice("int3/channel")}, encoding=FEEDBACK)
        with pytest.raises(
            PlanError,
            match=r"encoding that looks at inputs.*: conv_in .*calls.*"
            r"leave out rounding 'feedback' \(for 'nearest'\) and bias_correction",
        ):
            mz.quantize_checkpoint(pipeline, target, plan=plan)
        assert not target.exists()

    def test_no_calls_are_none(self):
        with pytest.raises(UsageError, match="calls: there are none"):
            PlanWithCalls(mz.Plan({}), ())

    def test_unusable_inputs_are_named(self, pipeline: Path, target: Path, calls: tuple[Call, ...]):
        ruined = dataclasses.replace(
            calls[0], args=(calls[0].args[0] * torch.nan, *calls[0].args[1:])
        )
        plan = mz.Plan({"conv_in": mz.Choice("int3/channel")}, encoding=FEEDBACK)
        with pytest.raises(CalibrationError, match=r"layer conv_in: .*NaN.*call 1 of 1"):
            mz.quantize_checkpoint(pipeline, target, plan=PlanWithCalls(plan, [ruined]))
        assert not target.exists()


def test_plans_made_by_packing_name_nearest_rounding(pipeline: Path, target: Path):
    assert mz.quantize_checkpoint(pipeline, target).plan.encoding == mz.Encoding()
