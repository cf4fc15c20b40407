"""Rows and tables of benchmarks/qua2sedimo.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.contestants.kept_rows import Kept
from benchmarks.contestants.qua2sedimo_rows import (
    AUTO,
    AUTO_BARE,
    AUTO_SIX,
    BLOCK,
    EVERYTHING,
    FLOAT,
    OP,
    OURS,
    Row,
    rows,
)
from benchmarks.contestants.qua2sedimo_table import markdown

DIT = "emoji-dit"


def found(plan: str, fd: float | None, real: float = 50.0, setting: str = "3.65 bits, A16") -> dict:
    interval = {"low": 0.0, "high": 1.0}
    none = fd is None
    return {
        "model": DIT,
        "table": "main",
        "setting": setting,
        "plan": plan,
        "fd_lite0": fd,
        "fd_interval": None if none else {"value": fd, "low": fd - 1, "high": fd + 1},
        "fd_real": real,
        "r_precision": {"value": 0.5},
        "r_precision_change": {"value": -0.1} | interval,
        "psnr_db": {"value": 20.0} | interval,
        "stored_bits": 3.64,
        "denoiser_bytes": 3_000_000,
        "context": {"images": 2048, "seed": 1000, "torch": "2", "device": "cpu"},
        "measured_on": "a machine",
        "weights": "digest",
        "asked": {},
    }


def test_every_row_comes_once():
    assert len({one.place for one in rows()}) == len(rows())
    narrow = {one.setting for one in rows() if one.act_bits < 16}
    assert narrow == {"3.65 bits, A8", "3.65 bits, A6"}


def test_rows_whose_bytes_are_those_of_ours_come_after_it():
    order = [one.plan for one in rows() if one.setting == "3.4 bits, A16" and one.model == DIT]
    assert all(order.index(OURS) < order.index(plan) for plan in (AUTO, AUTO_BARE, AUTO_SIX))


@pytest.mark.parametrize("row", rows(), ids=lambda row: "/".join(row.place))
def test_options_of_every_row_are_understood(row: Row):
    recipe = row.recipe("labels", "fitted")
    assert {name: getattr(recipe, name) for name in row.options} == row.options


def test_targets_are_judged_by_the_rows_that_are_there():
    page = markdown(
        [
            found(OP, 10.0),
            found(BLOCK, 12.0),
            found(OURS, 8.0),
            found(AUTO_BARE, 9.0),
            found(AUTO_SIX, 7.0),
            found(AUTO, 6.0),
            found(EVERYTHING, 3.0, real=51.0),
            found(FLOAT, 0.0, real=50.0, setting="16 bits, A16"),
        ]
    )
    assert "over the best published row (op level): 0.800, at most 0.9: met" in page
    assert "over auto with the same six and nothing else: 0.889, at most 1: met" in page
    assert "over auto with the same six and all other means: 1.143, at most 1: missed" in page
    assert "ours with everything over auto: 0.500, at most 0.7: met" in page
    assert "to real pictures over the original's: 1.020, at most 1.05: met" in page
    assert "op level 10.00 [9.00, 11.00], block level 12.00 [11.00, 13.00]" in page


def test_a_budget_that_codebooks_exceed_is_said():
    line = next(
        one for one in markdown([found("K-Means C alone", None)]).splitlines() if DIT in one
    )
    assert "| cannot be met |" in line
    assert line.count("|") == markdown([found(OP, 1.0)]).splitlines()[2].count("|")


def test_finished_rows_are_kept_and_others_made_again(tmp_path):
    row = next(one for one in rows() if one.plan == OP and one.setting == "3.65 bits, A16")
    row = replace(row, model=DIT)
    kept = Kept(tmp_path / "rows.json", [one.place for one in rows()], markdown)
    kept.add(found(OP, 10.0) | {"asked": row.asked})
    again = Kept(tmp_path / "rows.json", [one.place for one in rows()], markdown)
    assert again.has(row.place, 2048, row.asked)
    assert not again.has(row.place, 512, row.asked)
    assert not again.has(row.place, 2048, replace(row, epochs=2).asked)
    again.drop_others(DIT, "another digest")
    assert again.rows == []
