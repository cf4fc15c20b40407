"""Lines about a result beside its plan."""

from __future__ import annotations

import pytest

import mezzotint as mz
from mezzotint.cli._results import report, timed
from mezzotint.plan import Choice, Plan, joined_plan
from tests.models import several


@pytest.fixture
def encoder_alone(model):
    pipe = mz.load(model)
    names = [
        f"text_encoder.{name}"
        for name, part in pipe.text_encoder.named_modules()
        if name.endswith(("q_proj", "fc1"))
    ]
    plan = Plan(dict.fromkeys(names, Choice("int8/channel")), components=("text_encoder",))
    return pipe, mz.apply(pipe, plan)


def test_a_floating_denoiser_is_not_timed_against_itself(encoder_alone):
    assert timed(*encoder_alone) is None


def test_several_denoisers_are_timed_together_by_every_engine(tmp_path, capsys):
    pipe = mz.load(several.save_wan(tmp_path / "wan"))
    parts = {name: getattr(pipe, name) for name in ("transformer", "transformer_2")}
    plans = {name: mz.uniform_plan(part, weight_bits=8, act_bits=8) for name, part in parts.items()}
    times = timed(pipe, mz.apply(pipe, joined_plan(plans)), every_engine=True)
    assert times is not None
    assert {each.engine for each in times.packed} == {"torch", "openvino"}
    assert times.components == tuple(parts)
    assert "not timed" not in capsys.readouterr().err


def test_bytes_of_components_are_not_called_a_denoisers(encoder_alone, tmp_path, capsys):
    report(encoder_alone[1], tmp_path, as_json=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "the quantized components take" in said
    assert "the denoiser takes" not in said
