"""Stages that were announced, against the lines that followed."""

import pytest

from benchmarks.contestants.announced_stages import markdown, stages, taken_by_stage, whole

LINES = [
    (1.0, "quantize: 2 seconds"),
    (10.0, "Probing: 64 probes at 0.5 s each: about 32 seconds"),
    (10.0, "Then at the most 192 more probes and 6 measurements on 8 calls: about 2 minutes"),
    (14.0, "Probing: 8 of 64, 4 seconds, about 28 seconds left"),
    (50.0, "Probing: ended after 40 seconds"),
    (
        60.0,
        "Measuring plans: 2 changes of the whole model on 8 calls at 1.5 s each: about 3 seconds",
    ),
    (63.0, "Probing: 1,024 probes at 0.01 s each: about 10 seconds"),
    (73.0, "Packing: 3 of 9, 2 seconds, about 4 seconds left"),
]


def test_a_stage_lasts_until_its_end_is_told_or_the_next_begins():
    found = stages(LINES)
    assert [each.line for each in found] == [LINES[at][1] for at in (1, 5, 6)]
    assert [round(each.announced, 2) for each in found] == [32.0, 3.0, 10.24]
    assert [each.taken for each in found] == [40.0, 3.0, 10.0]
    assert [round(each.ratio, 2) for each in found] == [1.25, 1.0, 0.98]


WHOLE = [
    (2.0, "quantize: 2 seconds"),
    (4.0, "Timing a call: 2 seconds"),
    (8.0, "Timing a call: ended after 6 seconds"),
    (10.0, "In all about 2 minutes: recording 30 seconds, probing 80 seconds, packing 1 second"),
    (10.0, "Then at the most 192 more probes: about 4 minutes"),
    (12.0, "Recording: 2 seconds"),
    (16.0, "Recording: 1 of 4, 6 seconds, about 18 seconds left"),
    (44.0, "Recording: ended after 34 seconds"),
    (46.0, "Probing: 64 probes at 1.2 s each: about 77 seconds"),
    (48.0, "Probing: 2 of 64, 2 seconds"),
    (120.0, "Probing: ended after 74 seconds"),
]


def test_the_whole_is_what_was_announced_of_all_stages_and_what_followed():
    found = whole(WHOLE, 121.0)
    assert found.stages == {"recording": 30, "probing": 80, "packing": 1}
    assert (found.told_after, found.taken) == (10.0, 111.0)
    assert found.ratio == 1.0


def test_a_command_that_never_tells_all_is_refused():
    with pytest.raises(ValueError, match="no line announces"):
        whole(LINES, 80.0)


def test_a_stage_takes_as_long_as_its_last_line_says():
    found = taken_by_stage(WHOLE)
    assert found == {"timing a call": 6.0, "recording": 34.0, "probing": 74.0}


def test_what_is_prepared_for_all_units_counts():
    (found,) = stages([(1.0, "Measuring: 2 changes of 1 layers at 3 s each, after 4 s of "
                        "preparation: about 10 seconds"), (11.0, "end")])  # fmt: skip
    assert (found.announced, found.taken) == (10.0, 10.0)


def test_the_tables_have_a_row_for_each_stage_and_one_for_all():
    rows = markdown(stages(WHOLE), whole(WHOLE, 121.0), taken_by_stage(WHOLE), 121.0).splitlines()
    assert rows[2] == "| recording | 30 seconds | 34 seconds |"
    assert rows[4] == "| packing | 1 second | – |"
    assert rows[5] == "| **in all** | **2 minutes** | **2 minutes, 1.00 times** |"
    assert rows[7] == "| the whole command | | 2 minutes |"
    assert rows[-1].startswith("| Probing: 64 probes")
