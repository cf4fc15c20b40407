from typing import Any

import pytest

from mezzotint.errors import FormatError, UsageError
from mezzotint.formats import parse_activation_format, parse_weight_format
from mezzotint.plan import Choice, Structure, register_structure, structure_named
from mezzotint.runtime import ConstantTokens, SplitInput, StepScales

W4A8 = Choice("int4/channel", "int8/token")
TEXT = Choice("int4/channel", "int8/token", structures=(ConstantTokens(1),))
SHORTCUT = Choice("int4/channel", "int8/token", structures=(SplitInput(320),))
BOTH = TEXT.with_structures(ConstantTokens(1), SplitInput(320))

STRUCTURE = pytest.mark.parametrize(
    ("structure", "field"),
    [
        (ConstantTokens, "constant_tokens: count"),
        (SplitInput, "split: first"),
        (StepScales, "step_scales: steps"),
    ],
    ids=["constant_tokens", "split", "step_scales"],
)


class TestFormats:
    def test_a_layer_stays_floating_unless_told_otherwise(self):
        assert Choice() == Choice("float", "float")
        assert not Choice().quantized
        assert (Choice().weight_format, Choice().activation_format) == (None, None)

    def test_the_names_give_the_formats(self):
        assert W4A8.quantized
        assert W4A8.weight_format == parse_weight_format("int4/channel")
        assert W4A8.activation_format == parse_activation_format("int8/token")

    def test_only_ranges_per_tensor_are_static(self):
        assert Choice("int4/channel", "uint8/tensor").static
        assert not W4A8.static
        assert not Choice().static

    def test_it_prints_both(self):
        assert str(W4A8) == "int4/channel × int8/token"

    @pytest.mark.parametrize(
        "formats", [("int4", "float"), ("int4/channel", "int8"), ("int9/channel", "float")]
    )
    def test_unknown_formats_are_refused(self, formats: tuple[str, str]):
        with pytest.raises(FormatError):
            Choice(*formats)

    def test_a_quantized_activation_needs_a_quantized_weight(self):
        with pytest.raises(FormatError, match="'int8/token' goes with a quantized weight"):
            Choice("float", "int8/token")


class TestStructure:
    def test_there_is_none_unless_asked_for(self):
        assert (W4A8.structures, W4A8.label) == ((), "")

    def test_a_split_layer_has_two_quantizers(self):
        assert [choice.parts for choice in (W4A8, TEXT, SHORTCUT, BOTH)] == [1, 1, 2, 2]

    def test_the_formats_can_be_had_alone(self):
        assert TEXT.plain == SHORTCUT.plain == BOTH.plain == W4A8.plain == W4A8

    def test_parts_have_the_structures_that_follow(self):
        assert BOTH.of_part("others") == SHORTCUT
        assert SHORTCUT.of_part("first") == SHORTCUT.of_part("second") == W4A8

    def test_it_makes_another_choice(self):
        assert (
            len(
                {
                    W4A8,
                    TEXT,
                    SHORTCUT,
                    Choice("int4/channel", "int8/token", structures=(SplitInput(640),)),
                }
            )
            == 4
        )

    def test_it_prints_after_the_formats(self):
        assert str(TEXT) == "int4/channel × int8/token, constant tokens: 1"
        assert str(SHORTCUT) == "int4/channel × int8/token, split at 320"
        assert str(BOTH) == "int4/channel × int8/token, constant tokens: 1, split at 320"

    def test_an_unknown_kind_names_those_there_are(self):
        with pytest.raises(FormatError, match="unknown structure 'x'; there are: constant_tokens"):
            structure_named("x")

    def test_one_that_cannot_be_calibrated_is_not_registered(self):
        class Unseen(ConstantTokens):
            kind = "unseen"
            observer = Structure.observer

        with pytest.raises(UsageError, match="structure unseen has calibrated tensors, but no obs"):
            register_structure(Unseen)

    @STRUCTURE
    @pytest.mark.parametrize("value", [-1, 0, 2**16, 1.0, "1", True, None], ids=repr)
    def test_what_is_no_count_is_refused(self, structure: Any, field: str, value: Any):
        with pytest.raises(FormatError, match=f"{field} is {value!r}; expected a whole number"):
            structure(value)

    @STRUCTURE
    def test_it_needs_a_quantized_weight(self, structure: Any, field: str):
        with pytest.raises(FormatError, match=f"{structure.kind} goes with a quantized weight"):
            Choice(structures=(structure(3),))

    @pytest.mark.parametrize(
        "value", [ConstantTokens(1), [ConstantTokens(1)], ("split",)], ids=repr
    )
    def test_what_is_no_tuple_of_structures_is_refused(self, value: Any):
        with pytest.raises(FormatError, match="expected a tuple such as"):
            Choice("int4/channel", structures=value)


class TestScalesPerStep:
    """The activation format names the grid, the structure stores its scales: both or neither."""

    STEPPED = Choice("int4/channel", "uint4/step", (StepScales(20),))

    def test_it_prints_both(self):
        assert str(self.STEPPED) == "int4/channel × uint4/step, input scales of 20 steps"

    def test_the_format_needs_the_structure(self):
        complaint = "'uint4/step' goes with the structure step_scales.*or take 'uint4/tensor'"
        with pytest.raises(FormatError, match=complaint):
            Choice("int4/channel", "uint4/step")
        with pytest.raises(FormatError, match=complaint):
            Choice("int4/channel", "uint4/step", (ConstantTokens(1),))

    @pytest.mark.parametrize("activation", ["float", "uint4/tensor", "int8/token"])
    def test_the_structure_needs_the_format(self, activation: str):
        complaint = f"step_scales goes with .* 'uint4/step', not with '{activation}'"
        with pytest.raises(FormatError, match=complaint):
            Choice("int4/channel", activation, (StepScales(20),))

    def test_no_single_range_is_calibrated(self):
        assert not self.STEPPED.static
        assert self.STEPPED.timed
        assert (self.STEPPED.steps, W4A8.steps) == (20, 0)

    def test_its_part_has_its_formats(self):
        (name,) = StepScales.part_names
        part = self.STEPPED.of_part(name)
        assert (part.activation, part.structures) == ("uint4/step", ())
        text = Choice("int4/channel", "uint4/step", (ConstantTokens(1), StepScales(20)))
        assert text.of_part("others") == self.STEPPED

    def test_without_structures_it_has_one_scale(self):
        assert self.STEPPED.plain == Choice("int4/channel", "uint4/tensor")
