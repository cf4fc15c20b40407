"""Tables of the benchmarks."""

from benchmarks.contestants.peers_table import markdown as peers_markdown
from benchmarks.contestants.quality_contestants import PEERS, SETTINGS, candidates
from benchmarks.contestants.speed_contestants import selected, speed_contestants
from benchmarks.contestants.speed_table import markdown

HEAD = {"machine": "m", "denoiser": "sd15", "batch": 1, "bits": "bf16", "dtype": "bfloat16"}


def timed(name: str, peak: int) -> dict:
    span = {"ratio": 2.0, "low": 1.5, "high": 2.5}
    return HEAD | {
        "contestant": name,
        "repeats": 7,
        "relative_error": 0.01,
        "bare_bytes": 2**20,
        "peak_bytes": 2**20 + peak,
        "stored_bytes": 1234567,
        "load_s": 1.0,
        "first_call_s": 1.0,
        "note": "",
        "speedup": {"torch-fp32": span},
        "versions": {"torch": "2.13.0"},
    }


def test_memory_is_held_against_eager_torch_in_16_bits():
    rows = [timed("torch-bf16", 100 * 2**20), timed("mezzotint-w8a8", 55 * 2**20)]
    line = next(one for one in markdown(rows, {}).splitlines() if "mezzotint" in one)
    assert "| 55 MiB | 0.55 | 1,234,567 |" in line


def test_a_speedup_without_its_baseline_is_left_empty():
    other = timed("torch-bf16", 1)
    other["speedup"] = other["speedup"] | {"torch-bf16": {"ratio": 1.0, "low": 1.0, "high": 1.0}}
    line = next(
        one for one in markdown([other, timed("mezzotint-w8a8", 1)], {}).splitlines()
        if "mezzotint" in one
    )  # fmt: skip
    assert "| 2.00 [1.50, 2.50] |  |" in line


def test_columns_that_nobody_fills_are_left_out():
    head = next(
        one for one in markdown([timed("mezzotint-w8a8", 1)], {}).splitlines() if "|" in one
    )
    assert "× fp32" in head
    assert "× 16 bits" not in head
    assert "notes" not in head


def test_a_contestant_that_cannot_run_keeps_its_row():
    rows = [HEAD | {"contestant": "torch-fp16", "repeats": 7, "reason": "no a|b here"}]
    table = markdown(rows, {})
    lines = [one for one in table.splitlines() if one.startswith("|")]
    assert lines[2].endswith("| no a\\|b here |")
    assert lines[2].replace("\\|", "").count("|") == lines[0].count("|")


def test_a_peer_without_a_width_keeps_its_row():
    row = {"model": "emoji-dit", "peer": "quanto", "setting": "W3A16", "reason": "has no W3A16"}
    lines = peers_markdown([row]).splitlines()
    assert "has no W3A16" in lines[2]
    assert lines[2].count("|") == lines[0].count("|")


def test_contestants_have_names_of_their_own():
    names = [contestant.name for contestant in speed_contestants()]
    assert len(names) == len(set(names))


def test_patterns_choose_contestants():
    assert {contestant.tool for contestant in selected(["quanto-*"])} == {"quanto"}


def test_every_peer_is_asked_for_every_width():
    offered = {(p, s): candidates(p, s) for p in PEERS for s in SETTINGS}
    assert [place for place, found in offered.items() if not found] == [("quanto", "W3A16")]


def test_engines_of_ours_share_the_packed_files():
    contestants = {contestant.name: contestant for contestant in speed_contestants()}
    assert contestants["mezzotint-w8a8"].files == contestants["mezzotint-w8a8-compiled"].files
    assert contestants["mezzotint-w8a8"].files != contestants["mezzotint-w8a8-static"].files
