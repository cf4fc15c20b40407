"""What is said of a result beside its plan."""

from __future__ import annotations

import pytest

import mezzotint as mz
from mezzotint.cli._results import report, timed
from mezzotint.plan import Choice, Plan


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


def test_bytes_of_components_are_not_called_a_denoisers(encoder_alone, tmp_path, capsys):
    report(encoder_alone[1], tmp_path, as_json=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "the quantized components take" in said
    assert "the denoiser takes" not in said
