"""Tables of the README and of docs/results.md have the figures that the benchmark has kept."""

import json

import pytest

from mezzotint.predictors import FoldFigures, averages
from tests.docs.pages import ROOT

RESULTS = ROOT / "benchmarks" / "results"
LADDER = json.loads((RESULTS / "ladder.json").read_text("utf-8"))
MPQDM = json.loads((RESULTS / "mpqdm.json").read_text("utf-8"))
QUA2SEDIMO = json.loads((RESULTS / "qua2sedimo.json").read_text("utf-8"))
PREDICTORS = json.loads((RESULTS / "predictors.json").read_text("utf-8"))
PLANS = ("uniform", "+ constant first token", "+ allocation", "+ exchanges (auto)")
SHOWN = [
    ("emoji-turbo", 4.0), ("emoji-turbo", 3.0), ("emoji-dit", 4.0), ("emoji-dit", 3.0)
]  # fmt: skip


def table_rows(page):
    """Cells of every row of every table."""
    lines = (ROOT / page).read_text("utf-8").splitlines()
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines
            if line.startswith("|")]  # fmt: skip


def place(row):
    return f"{row['model']} {row['plan']}"


@pytest.mark.parametrize(("model", "bits"), SHOWN)
def test_the_readme_has_the_figures_of_four_plans(model, bits):
    found = {
        row["plan"]: row
        for row in LADDER
        if (row["table"], row["model"], row["bits"]) == ("ladder", model, bits)
    }
    figures = [found[plan] for plan in PLANS]
    cells = [f"{row['fd_lite0']:.1f}, {row['psnr_db']['value']:.1f} dB" for row in figures]
    assert [model, f"{bits:g}", *cells] in table_rows("README.md")


def distances(row):
    return [
        f"{row['sqnr_db']:.2f} dB",
        f"{row['psnr_db']['value']:.2f} dB",
        f"{row['fd_lite0']:.3f}",
    ]


def precision(row):
    own, original = (row[name]["value"] for name in ("r_precision", "reference_r_precision"))
    return f"{own:.3f} ({original:.3f})"


@pytest.mark.parametrize("row", LADDER, ids=place)
def test_results_have_every_rung_of_the_ladder_and_every_width(row):
    rung = row["table"] == "ladder"
    inputs, last = ([], [precision(row)]) if rung else ([f"A{row['act_bits']}"], [])
    start = [row["model"], f"{row['bits']:g}", *inputs, row["plan"], f"{row['denoiser_bytes']:,}"]
    assert [*start, *distances(row), *last] in table_rows("docs/results.md")


@pytest.mark.parametrize("row", MPQDM, ids=place)
def test_results_have_every_way_to_few_bits(row):
    found, psnr, own = (row[name] for name in ("fd_interval", "psnr_db", "r_precision"))
    distance = f"{row['fd_lite0']:.1f} [{found['low']:.1f}, {found['high']:.1f}]"
    figures = [distance, f"{psnr['value']:.1f} dB", f"{own['value']:.3f}"]
    start = [row["model"], row["setting"], row["plan"], str(row["updates"])]
    assert [*start, f"{row['denoiser_bytes']:,}", *figures] in table_rows("docs/results.md")


@pytest.mark.parametrize("row", QUA2SEDIMO, ids=lambda row: f"{row['setting']} {row['plan']}")
def test_results_have_every_plan_at_given_bits(row):
    found, psnr, own = (row[name] for name in ("fd_interval", "psnr_db", "r_precision"))
    distance = f"{row['fd_lite0']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
    figures = [distance, f"{row['fd_real']:.1f}", f"{psnr['value']:.1f} dB", f"{own['value']:.3f}"]
    start = [row["model"], row["setting"], row["plan"], f"{row['denoiser_bytes']:,}"]
    assert [*start, *figures] in table_rows("docs/results.md")


@pytest.mark.parametrize("row", PREDICTORS, ids=lambda row: f"{row['model']} {row['predictor']}")
def test_results_have_every_predictor(row):
    found = averages([FoldFigures(**one) for one in row["folds"]])
    figures = [f"{found[name].value:.3f}" for name in ("spearman", "partial", "ndcg")]
    loss = f", {row['options']['loss']}" if row["predictor"] in ("network", "residual") else ""
    cells = [row["predictor"] + loss, *figures, f"{found['regret'].value:.3g}"]
    assert cells in table_rows("docs/results.md")
