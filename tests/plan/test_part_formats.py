"""Parts of a layer with weight formats of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.errors import FormatError, PlanError
from mezzotint.plan import VERSION, Choice, Difference, Plan, Planned, diff, dumps
from mezzotint.runtime import ConstantTokens, Smoothing, SplitInput, StepScales

FORMATS = ("kmeans3/channel", "kmeans4/tensor", "uint3/channel", "uint4/group64", "lut5/channel")
SECOND = (("second", "uint3/channel"),)
HALVES = Choice("kmeans4/channel", structures=(SplitInput(320),), part_formats=SECOND)
SPLIT = HALVES.with_structures(SplitInput(320))
DEEP = HALVES.with_structures(ConstantTokens(1), SplitInput(320), Smoothing())

formats = st.sampled_from(FORMATS)
structures = st.sampled_from(
    [
        (SplitInput(320),),
        (ConstantTokens(1), SplitInput(320)),
        (SplitInput(320), Smoothing()),
        (ConstantTokens(1), SplitInput(320), Smoothing(), StepScales(4)),
    ]
)


def halves(first: str, second: str, around: tuple = (SplitInput(320),)) -> Choice:
    stepped = any(isinstance(each, StepScales) for each in around)
    activation = "uint4/step" if stepped else "uint8/token"
    return Choice(first, activation, around, (("second", second),))


class TestChoice:
    @given(formats, formats, structures)
    def test_each_quantizer_has_its_own(self, first: str, second: str, around: tuple):
        choice = halves(first, second, around)
        assert [each.weight for each in choice.of_quantizers] == [first, second]
        assert [str(each) for each in choice.weight_formats] == [first, second]
        assert {each.activation for each in choice.of_quantizers} == {choice.activation}
        assert all(each.structures == each.part_formats == () for each in choice.of_quantizers)
        assert choice.parts == 2

    @given(formats, formats, structures)
    def test_equal_formats_are_the_choice_without(self, first: str, second: str, around: tuple):
        choice = halves(first, second, around)
        alone = replace(choice, part_formats=())
        assert (choice == alone) == (hash(choice) == hash(alone)) == (first == second)

    def test_a_part_is_asked_for_by_its_name(self):
        assert HALVES.of_part("first") == Choice("kmeans4/channel")
        assert HALVES.of_part("second") == Choice("uint3/channel")

    def test_a_part_is_found_wherever_it_stands(self):
        within = DEEP.of_part("others")
        assert within == HALVES.with_structures(SplitInput(320), Smoothing())
        assert within.of_part("second") == Choice("uint3/channel", structures=(Smoothing(),))
        assert within.of_part("first") == Choice("kmeans4/channel", structures=(Smoothing(),))

    def test_other_structures_leave_out_formats_of_parts_that_they_lack(self):
        assert HALVES.with_structures(ConstantTokens(1)).part_formats == ()
        assert HALVES.with_structures(ConstantTokens(1), SplitInput(8)).part_formats == SECOND
        assert HALVES.plain == Choice("kmeans4/channel")

    def test_the_weights_alone_keep_them(self):
        rounded = replace(HALVES, activation="uint8/tensor")
        assert rounded.of_weight == HALVES

    def test_it_prints_both(self):
        assert HALVES.weight_label == "kmeans4/channel, second: uint3/channel"
        assert str(HALVES) == "kmeans4/channel, second: uint3/channel × float, split at 320"
        assert SPLIT.weight_label == "kmeans4/channel, second: uint3/channel"
        assert Choice("int4/channel").weight_label == "int4/channel"

    @pytest.mark.parametrize(
        ("given", "complaint"),
        [
            ({"third": "int4/channel"}, "names third, .*expected one of second"),
            ({"first": "int4/channel"}, "first part has the layer's own weight format"),
            ({"second": "float"}, "second is 'float', but the parts .* all or none"),
            ({"second": "int9/channel"}, "weight format 'int9/channel'"),
        ],
        ids=["unknown", "first", "float", "format"],
    )
    def test_what_no_part_can_have_is_refused(self, given: Mapping[str, str], complaint: str):
        with pytest.raises(FormatError, match=complaint):
            Choice("int3/channel", structures=(SplitInput(8),), part_formats=tuple(given.items()))

    @pytest.mark.parametrize("outer", [(), (ConstantTokens(1),), (Smoothing(),)], ids=str)
    def test_a_layer_of_one_part_has_no_others(self, outer: tuple):
        with pytest.raises(FormatError, match="leave part_formats out"):
            Choice("int3/channel", structures=outer, part_formats=SECOND)

    @pytest.mark.parametrize(
        "value",
        [{"second": "int3/channel"}, ("second",), (("second", 3),), "second", (*SECOND, *SECOND)],
        ids=repr,
    )
    def test_what_is_no_tuple_of_pairs_is_refused(self, value: Any):
        with pytest.raises(FormatError, match=r"part_formats (is|names a part twice)"):
            Choice("int4/channel", structures=(SplitInput(8),), part_formats=value)


class TestPlan:
    @given(formats, formats, structures)
    def test_plans_come_back(self, first: str, second: str, around: tuple):
        plan = Plan({"skip": halves(first, second, around), "other": Choice("int4/channel")})
        again = Plan.from_dict(json.loads(dumps(plan)))
        assert again == plan
        assert dumps(again) == dumps(plan)

    def test_they_are_written_by_the_name_of_the_part(self):
        assert Plan({"skip": HALVES}).to_dict()["layers"]["skip"] == {
            "weight": "kmeans4/channel",
            "activation": "float",
            "structures": [{"kind": "split", "first": 320}],
            "part_formats": {"second": "uint3/channel"},
        }

    def test_a_layer_without_is_written_as_ever(self):
        one = Choice("kmeans4/channel", structures=(SplitInput(320),))
        written = Plan({"skip": one}).to_dict()["layers"]["skip"]
        assert set(written) == {"weight", "activation", "structures"}

    @pytest.mark.parametrize("version", [1, 2])
    def test_older_versions_had_none(self, version: int):
        layer = HALVES.to_dict()
        with pytest.raises(PlanError, match="layer skip: part_formats goes with version 3"):
            Plan.from_dict({"version": version, "layers": {"skip": layer}})

    @pytest.mark.parametrize(
        ("value", "complaint"),
        [
            ({"third": "int4/channel"}, "layer skip: part_formats names third"),
            ({"second": "int4"}, "layer skip: unknown weight format 'int4'"),
            ({"second": 4}, r"layers\.skip\.part_formats\.second"),
            (["int4/channel"], r"layers\.skip\.part_formats"),
        ],
        ids=["unknown", "format", "number", "list"],
    )
    def test_the_layer_at_fault_is_named(self, value: Any, complaint: str):
        layer = HALVES.to_dict() | {"part_formats": value}
        with pytest.raises(PlanError, match=complaint):
            Plan.from_dict({"version": VERSION, "layers": {"skip": layer}})

    def test_they_are_a_difference_between_plans(self):
        one, other = replace(HALVES, part_formats=()), HALVES
        left, right = (Plan({"skip": each}) for each in (one, other))
        sides = (Planned(each, left.encoding) for each in (one, other))
        assert diff(left, right) == (Difference("skip", *sides),)
        assert diff(right, right) == ()

    def test_tables_show_both(self):
        printed = str(Plan({"skip": HALVES}))
        assert printed.count("kmeans4/channel, second: uint3/channel") == 2
