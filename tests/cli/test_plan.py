import json

import mezzotint as mz


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
    eight = {"weight": "int8/channel", "activation": "int8/token"}
    assert json.loads(run("plan", "diff", left, right, "--json").stdout) == [
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
    assert json.loads(run("plan", "diff", quantized, quantized, "--json").stdout) == []
