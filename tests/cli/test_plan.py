import json
from dataclasses import replace

import mezzotint as mz
from mezzotint.formats import MINMAX
from mezzotint.plan import CalibrationSettings


def test_show_prints_the_plan_of_a_checkpoint(run, quantized, uniform):
    assert mz.Plan.from_dict(json.loads(run("plan", "show", quantized, "--json").stdout)) == uniform


def test_show_prints_a_plan_file(run, uniform, tmp_path):
    uniform.save(tmp_path / "plan.json")
    shown = run("plan", "show", tmp_path / "plan.json").stdout
    assert "int8/channel" in shown
    assert "conv_in" in shown


def test_diff_lists_what_was_edited(run, quantized, uniform, tmp_path):
    edited = uniform.to_dict()
    edited["layers"]["conv_in"] = {"weight": "float"}
    del edited["layers"]["conv_out"]
    (tmp_path / "edited.json").write_text(json.dumps(edited))
    left, right = quantized, tmp_path / "edited.json"
    encoding = {"search": "mse", "rounding": "nearest"}
    eight = {"weight": "int8/channel", "activation": "int8/token", "encoding": encoding}
    found = json.loads(run("plan", "diff", left, right, "--json").stdout)
    assert found["calibration"] == {}
    assert found["layers"] == [
        {
            "layer": "conv_in",
            "left": eight,
            "right": {"weight": "float", "activation": "float"},
        },
        {"layer": "conv_out", "left": eight, "right": None},
    ]
    shown = run("plan", "diff", left, right).stdout
    assert "2 layers differ" in shown
    assert "no such layer" in shown


def test_equal_plans_differ_nowhere(run, quantized):
    found = json.loads(run("plan", "diff", quantized, quantized, "--json").stdout)
    assert found == {"layers": [], "calibration": {}}


def test_diff_lists_other_roundings_and_calibrations(run, uniform, tmp_path):
    names = list(uniform)
    settings = CalibrationSettings(mz.Sampling(("owl",)), 1, 0.95)
    special = {names[0]: mz.Encoding(MINMAX)}
    replace(uniform, calibration=settings).save(tmp_path / "left.json")
    other = replace(settings, momentum=None)
    replace(uniform, encodings=special, calibration=other).save(tmp_path / "right.json")
    files = tmp_path / "left.json", tmp_path / "right.json"
    found = json.loads(run("plan", "diff", *files, "--json").stdout)
    (layer,) = found["layers"]
    assert layer["layer"] == names[0]
    assert layer["right"]["encoding"]["search"] == "minmax"
    assert found["calibration"] == {"momentum": {"left": 0.95, "right": None}}
    shown = run("plan", "diff", *files).stdout
    assert "1 layers differ" in shown
    assert "minmax, nearest" in shown
    assert "Calibrated otherwise" in shown


def test_show_says_how_weights_are_rounded(run, uniform, tmp_path):
    replace(uniform, encoding=mz.Encoding(MINMAX)).save(tmp_path / "plan.json")
    assert "encoding: minmax, nearest" in run("plan", "show", tmp_path / "plan.json").stdout
