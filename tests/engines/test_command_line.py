"""`--engine` of the verbs that compute."""

import json

from tests.cli.conftest import fails, model, quantized, run, uniform  # noqa: F401  (fixtures)


def test_generate_takes_an_engine(run, quantized, tmp_path):  # noqa: F811
    assert run("generate", quantized, "owl", "-o", tmp_path, "--engine", "auto").exit_code == 0
    assert (tmp_path / "000-owl.png").is_file()


def test_bench_says_what_the_engine_computes_in(run, model, quantized):  # noqa: F811
    options = ["--repeats", 1, "--engine", "openvino", "--json", "-"]
    result = run("bench", quantized, "--reference", model, *options)
    kernels = json.loads(result.stdout)["quantized"]["kernels"]
    assert kernels
    assert all(kernel["kernel"].startswith("openvino ") for kernel in kernels)


def test_an_unknown_engine_is_bad_input(fails, quantized, tmp_path):  # noqa: F811
    assert "unknown engine 'warp'" in fails(
        "generate", quantized, "owl", "-o", tmp_path, "--engine", "warp"
    )
