"""Times and figures of a pipeline with two denoisers."""

from __future__ import annotations

import numpy as np
import pytest
from diffusers import WanPipeline

import mezzotint as mz
from mezzotint.errors import ModelError, UsageError
from mezzotint.evaluation import able_engines, call_times, evaluate
from mezzotint.plan import joined_plan
from mezzotint.runtime import module_bytes
from tests.models import several
from tests.pipelines.text_to_image import TEXT_TO_IMAGE

BOTH = ("transformer", "transformer_2")
SAMPLING = mz.Sampling(("owl", "red fox"))
SIZE = {"height": 64, "width": 64, "max_sequence_length": 48}


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> WanPipeline:
    """Wan 2.2; read only."""
    return mz.load(several.save_wan(tmp_path_factory.mktemp("several") / "wan"))


@pytest.fixture(scope="module")
def failing():
    """A pipeline that OpenVINO fails on: floating, packed, and a sampling."""
    (tiny,) = (each for each in TEXT_TO_IMAGE if each.title == "Lumina 2")
    pipe = tiny.build()
    plan = mz.uniform_plan(pipe.transformer, weight_bits=8, act_bits=16)
    sampling = mz.Sampling(("owl",), steps=2, call_kwargs=SIZE)
    return pipe, mz.apply(pipe, plan).pipeline, sampling


def plan_of(pipe: WanPipeline, *names: str) -> mz.Plan:
    parts = {name: getattr(pipe, name) for name in names}
    return joined_plan(
        {name: mz.uniform_plan(part, weight_bits=4, act_bits=8) for name, part in parts.items()}
    )


class TestTimes:
    def test_one_call_of_each_is_timed(self, pipe):
        packed = mz.apply(pipe, plan_of(pipe, *BOTH)).pipeline
        found = call_times(pipe, packed, able_engines(packed), repeats=1)
        assert found.components == BOTH
        assert {each.engine for each in found.packed} == {"torch", "openvino"}
        assert found.lines[0].startswith("one call each of transformer and transformer_2 takes ")
        assert found.to_dict()["components"] == [*BOTH]

    def test_one_that_is_not_packed_is_not(self, pipe):
        packed = mz.apply(pipe, plan_of(pipe, BOTH[1])).pipeline
        found = call_times(pipe, packed, repeats=1)
        assert found.components == (BOTH[1],)
        assert found.lines[0].startswith("one call of transformer_2 takes ")

    def test_without_any_there_is_nothing_to_time(self, pipe):
        with pytest.raises(UsageError, match="pipe: no denoiser of it is packed"):
            call_times(pipe, pipe)


class TestEvaluation:
    def test_an_executor_makes_the_videos_of_both(self, pipe):
        result = mz.apply(pipe, plan_of(pipe, *BOTH))
        here, there = (
            evaluate(pipe, result.pipeline, SAMPLING, executor=executor)
            for executor in (None, "in-process")
        )
        assert there.to_dict() == here.to_dict()
        assert there.context["components"] == [*BOTH]
        assert there.denoiser_bytes == module_bytes(result.denoiser)

    def test_tuning_is_refused_with_the_call_that_packs_them(self, pipe):
        message = r"plan: is of transformer and transformer_2, .* apply\(pipe, plan\)"
        with pytest.raises(UsageError, match=message):
            mz.tune(pipe, plan_of(pipe, *BOTH), steps=1)


class TestEnginesThatFail:
    """OpenVINO fails on the complex numbers of Lumina 2, and at the first call only."""

    def test_the_times_of_others_stay(self, failing):
        pipe, quantized, sampling = failing
        found = call_times(pipe, quantized, ("openvino", "torch"), sampling=sampling, repeats=1)
        assert [each.engine for each in found.packed] == ["torch"]
        assert "note: openvino was not timed: " in "\n".join(found.lines)
        assert found.to_dict()["left_out"].keys() == {"openvino"}
        assert np.isfinite(found.floating_ms)

    def test_if_all_fail_the_reasons_are_told(self, failing):
        pipe, quantized, sampling = failing
        with pytest.raises(ModelError, match=r"no engine computes a call .*\(openvino: "):
            call_times(pipe, quantized, ("openvino",), sampling=sampling, repeats=1)
