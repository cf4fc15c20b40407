"""Rows and tables of benchmarks/mpqdm.py."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks.contestants.mpqdm_rows import (
    AUTO,
    EFFICIENTDM,
    FLOAT,
    PUBLISHED,
    TABLES,
    TEACHER,
    Row,
    rows,
)
from benchmarks.contestants.mpqdm_table import markdown

INTERVAL = {"low": 0.0, "high": 0.0}


def found(row: Row, fd: float = 10.0, precision: float = 0.5) -> dict:
    return {
        "model": row.model,
        "table": row.table,
        "setting": row.setting,
        "plan": row.plan,
        "updates": 100,
        "minutes": 10.0,
        "bits": {"with_exceptions": 2.5, "denoiser": 2.75},
        "fd_interval": {"value": fd, "low": fd - 1, "high": fd + 1},
        "fd_real": None,
        "r_precision": {"value": precision},
        "r_precision_change": {"value": -0.1} | INTERVAL,
        "psnr_db": {"value": 20.0} | INTERVAL,
        "caption_score": 3.0,
        "denoiser_bytes": 3_000_000,
        "context": {"images": 2048, "seed": 1000, "torch": "2", "device": "cpu"},
        "measured_on": "a machine",
    }


def row(plan: str, table: str = "main", setting: str = "W2A4") -> Row:
    return next(
        one
        for one in rows()
        if (one.plan, one.table, one.setting, one.model) == (plan, table, setting, TEACHER)
    )


def test_rows_come_table_by_table_and_each_once():
    order = [one.table for one in rows()]
    assert order == sorted(order, key=TABLES.index)
    assert len({one.place for one in rows()}) == len(rows())
    assert len({one.slug for one in rows()}) == len(rows())


def test_every_row_has_options_or_another_way():
    others = {one.plan for one in rows() if one.options is None}
    assert others == {FLOAT, AUTO, "auto, scales tuned"}
    for one in rows():
        if one.options is not None:
            training = one.recipe().training
            assert training.trains == bool(one.minutes)
            assert training.minutes in (None, one.minutes)


def test_trained_rows_of_a_table_have_equal_minutes():
    for table in TABLES:
        assert len({one.minutes for one in rows() if one.table == table and one.minutes}) == 1


def test_minutes_and_images_can_be_fewer():
    short = rows(minutes=1, images=8)
    assert {one.minutes for one in short} == {0, 1}
    assert {one.images for one in short} == {8}


def test_another_definition_of_a_row_is_another_row():
    one = row(PUBLISHED)
    assert one.asked(None) == json.loads(json.dumps(one.asked(None)))
    changed = (replace(one, options={"plus": True}), replace(one, by_bytes=True))
    assert all(other.asked(None) != one.asked(None) for other in changed)
    assert one.asked(2) != one.asked(None)


def test_a_table_has_a_line_for_each_row_and_as_many_cells():
    lines = [
        one
        for one in markdown([found(row(FLOAT)), found(row(PUBLISHED))]).splitlines()
        if one.startswith("|")
    ]
    assert len(lines) == 4
    assert len({one.count("|") for one in lines}) == 1


@pytest.mark.parametrize(("fd", "word"), [(4.0, "met"), (5.0, "missed")])
def test_a_target_is_met_or_missed(fd: float, word: str):
    table = markdown([found(row(PUBLISHED), fd), found(row(EFFICIENTDM), 10.0)])
    (line,) = [one for one in table.splitlines() if "over EfficientDM's" in one]
    assert line.endswith(f"{fd / 10:.3f}, {word}")


def test_a_target_without_its_rows_says_so():
    lines = markdown([found(row(PUBLISHED))]).splitlines()
    assert all(one.endswith("not measured") for one in lines if one.startswith("- ("))
