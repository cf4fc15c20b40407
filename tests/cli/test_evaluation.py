import json


def test_evaluate_prints_figures_and_writes_json(run, model, quantized, tmp_path):
    file = tmp_path / "figures.json"
    result = run("evaluate", quantized, "--reference", model, "-n", 3, "--json", file)
    assert result.exit_code == 0
    assert "PSNR" in result.stdout
    assert json.loads(file.read_text())["context"]["images"] == 3


def test_evaluate_takes_the_given_prompts(run, model, quantized, tmp_path):
    (tmp_path / "prompts.txt").write_text("owl\nred apple\nship\n")
    options = ["-n", 2, "--prompts", tmp_path / "prompts.txt", "--seed", 9, "--json", "-"]
    context = json.loads(run("evaluate", quantized, "--reference", model, *options).stdout)[
        "context"
    ]
    assert context["images"] == 2
    assert context["seed"] == 9


def test_a_model_against_itself_is_unchanged(run, model):
    options = ["-n", 2, "--json", "-"]
    figures = json.loads(run("evaluate", model, "--reference", model, *options).stdout)
    assert figures["ssim"]["value"] == 1.0


def test_bench_prints_a_table_and_writes_json(run, model, quantized, tmp_path):
    file = tmp_path / "bench.json"
    result = run("bench", quantized, "--reference", model, "--repeats", 1, "--json", file)
    assert "quantized" in result.stdout
    assert json.loads(file.read_text())["device"] == "cpu"
