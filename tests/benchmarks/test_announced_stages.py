"""Stages that were announced, against the lines that followed."""

from benchmarks.contestants.announced_stages import markdown, stages

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


def test_the_table_has_a_row_for_each_and_one_for_all():
    rows = markdown(stages(LINES), 80.0).splitlines()
    assert len(rows) == 2 + 3 + 2
    assert rows[2].endswith("| 40 seconds | 1.25 |")
    assert rows[-2].endswith("| **1.17** |")
    assert rows[-1] == "| the whole command | 80 seconds | |"
