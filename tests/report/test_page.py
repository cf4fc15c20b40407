"""The HTML report says what was chosen and why, and stands alone."""

from __future__ import annotations

import math
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from mezzotint.models import inventory
from mezzotint.plan import Choice, Plan, uniform_plan
from mezzotint.report import (
    Report,
    ReportedModel,
    layer_rows,
    picture_grid,
    render,
    role_rows,
    save_report,
)
from mezzotint.report.page import COLOURS
from mezzotint.runtime import SplitInput, executions, pack_module
from tests.models import tiny


@pytest.fixture(scope="module")
def report() -> Report:
    unet = tiny.tiny_unet()
    plan = uniform_plan(unet, weight_bits=4, act_bits=8, exclude=["conv_out"])
    plan = replace(plan, choices=plan.choices | {"conv_in": Choice("int4/group32", "int8/token")})
    layers = inventory(unet)
    noise = {
        Choice("int4/channel", "int8/token"): {"noise": 0.001},
        Choice("int8/channel"): {"noise": 0.0},
    }
    pack_module(unet, plan)
    rows = layer_rows(layers, plan, {"conv_in": noise}, executions(unet))
    pictures = picture_grid({"original": np.zeros((2, 64, 64, 3), np.uint8)})
    return Report(
        title="tiny <model>",
        layers=rows,
        models=[
            ReportedModel("original", {"bytes": "1,000"}),
            ReportedModel("ours", {"SSIM": "1"}),
        ],
        pictures=pictures,
        prompts=["owl", "<script>alert(1)</script>"],
        context={"seed": 0},
    )


class Text(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.urls: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.urls += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_data(self, data):
        self.text += data


def test_every_layer_is_listed_with_its_choice(report):
    text = Text(render(report)).text
    for row in report.layers:
        assert row.name in text
    assert "int4/channel" in text


def test_a_layer_left_in_floating_point_says_why(report):
    row = next(row for row in report.layers if row.name == "conv_out")
    assert (row.weight, row.reason, row.stored) == ("float", "excluded by name", None)
    assert "excluded by name" in Text(render(report)).text


def test_kernels_and_the_reasons_of_fallbacks_are_shown(report):
    text = Text(render(report)).text
    assert "cpu-int8 (int8)" in text or "cpu-int8-onednn (int8)" in text
    assert "cpu-float (float, inputs rounded to int8/token)" in text
    assert "needs one scale per output channel, not per group" in text


def test_measurements_stand_beside_the_choice(report):
    text = Text(render(report)).text
    assert "30.0" in text
    assert "∞" in text
    row = next(row for row in report.layers if row.name == "conv_in")
    assert math.isinf(row.measured["int8/channel"])


def test_nothing_is_fetched_and_nothing_runs(report):
    page = Text(render(report))
    assert all(url.startswith("data:") for url in page.urls)
    assert "script" not in page.tags


def test_missing_figures_are_shown_as_missing(report):
    assert "–" in Text(render(report)).text


def test_roles_share_out_their_weights(report):
    for role in role_rows(report.layers):
        assert sum(role.shares.values()) == pytest.approx(1)
        assert 4 <= role.average_bits <= 16


def test_layers_outside_the_plan_are_left_out():
    unet = tiny.tiny_unet()
    rows = layer_rows(inventory(unet), Plan({"conv_in": Choice("int8/channel")}), {})
    assert [row.name for row in rows] == ["conv_in"]


def test_the_page_is_written_whole(report, tmp_path):
    path = save_report(report, tmp_path / "report.html")
    assert path.read_text("utf-8").rstrip().endswith("</html>")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_the_bits_of_both_halves_count():
    unet = tiny.tiny_unet()
    name = "up_blocks.0.resnets.0.conv_shortcut"
    layers = [layer for layer in inventory(unet) if layer.name == name]
    inputs = layers[0].weight_shape[1]
    choice = Choice("int8/channel", "float", (SplitInput(8),), (("second", "kmeans3/channel"),))
    (row,) = layer_rows(layers, Plan({name: choice}), {})
    assert row.weight == "int8/channel, second: kmeans3/channel"
    assert row.bits == pytest.approx((8 * 8 + 3 * (inputs - 8)) / inputs)
    assert role_rows([row])[0].average_bits == row.bits


def test_a_layer_of_several_widths_is_coloured_by_its_average():
    unet = tiny.tiny_unet()
    plan = Plan({"conv_in": Choice("mixed/int2:3,int3:13")})
    layers = [layer for layer in inventory(unet) if layer.name in plan.choices]
    page = render(Report(title="tiny", layers=layer_rows(layers, plan, {})))
    assert f'title="2.8125 bits: 100%" style="width:100.00%;background:{COLOURS["3"]}"' in page
