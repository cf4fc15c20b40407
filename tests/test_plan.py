import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.errors import FormatError, PlanError
from mezzotint.formats import parse_activation_format, parse_weight_format
from mezzotint.plan import VERSION, Choice, Difference, Plan, diff, dumps

FLOAT = Choice()
W4 = Choice("int4/channel")
W4A8 = Choice("int4/channel", "int8/token")

PLAN = Plan(
    choices={"conv_in": FLOAT, "mid.attn.to_q": W4A8, "mid.ff": Choice("uint3/group64")},
    model="emoji-turbo",
    reasons={"conv_in": "the first layer sees the noise itself"},
    context={"recipe": "auto", "seed": 0, "budget": {"size": None, "weight_bits": 3.5}},
)

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
choices = st.sampled_from([FLOAT, W4, W4A8, Choice("uint3/group64", "uint8/tensor")])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(-1e9, 1e9) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def plans(draw) -> Plan:
    chosen = draw(st.dictionaries(names, choices, max_size=6))
    reasoned = draw(st.sets(st.sampled_from(sorted(chosen)))) if chosen else set()
    return Plan(
        choices=chosen,
        model=draw(st.none() | names),
        reasons={name: draw(names) for name in sorted(reasoned)},
        context=draw(st.dictionaries(names, json_values, max_size=3)),
    )


class TestChoice:
    def test_a_layer_stays_floating_unless_told_otherwise(self):
        assert Choice() == Choice("float", "float")
        assert not Choice().quantized
        assert (Choice().weight_format, Choice().activation_format) == (None, None)

    def test_the_names_give_the_formats(self):
        assert W4A8.quantized
        assert W4A8.weight_format == parse_weight_format("int4/channel")
        assert W4A8.activation_format == parse_activation_format("int8/token")

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


class TestMapping:
    def test_a_plan_reads_like_a_mapping(self):
        assert PLAN["mid.attn.to_q"] == W4A8
        assert list(PLAN) == ["conv_in", "mid.attn.to_q", "mid.ff"]
        assert len(PLAN) == 3

    def test_the_quantized_layers_are_those_packed(self):
        assert list(PLAN.quantized) == ["mid.attn.to_q", "mid.ff"]


class TestStorage:
    @given(plan=plans())
    def test_every_plan_survives_json(self, plan: Plan):
        assert Plan.from_dict(json.loads(dumps(plan))) == plan

    def test_a_file_gives_the_plan_back(self, tmp_path: Path):
        PLAN.save(tmp_path / "a" / "plan.json")
        assert Plan.load(tmp_path / "a" / "plan.json") == PLAN
        assert Plan.load(str(tmp_path / "a" / "plan.json")) == PLAN

    @given(plan=plans())
    def test_layers_keep_their_order(self, plan: Plan):
        assert list(Plan.from_dict(json.loads(dumps(plan)))) == list(plan)

    def test_the_file_is_made_to_be_read_and_edited(self, tmp_path: Path):
        PLAN.save(tmp_path / "plan.json")
        text = (tmp_path / "plan.json").read_text("utf-8")
        assert text.splitlines()[1] == f'  "version": {VERSION},'
        assert '    "mid.ff": {\n      "weight": "uint3/group64",' in text

    def test_a_hand_written_plan_may_leave_out_what_has_a_default(self):
        plan = Plan.from_dict({"version": 1, "layers": {"a": {"weight": "int4/channel"}}})
        assert plan == Plan({"a": W4})


def edited(**changes: Any) -> dict[str, Any]:
    return PLAN.to_dict() | changes


class TestMistakes:
    """Whatever a hand may get wrong: one error that names the file and the field."""

    @pytest.mark.parametrize(
        ("value", "where", "why"),
        [
            ([], "top level", "valid dictionary"),
            (None, "top level", "valid dictionary"),
            ({}, "version", "required"),
            ({"version": 1}, "layers", "required"),
            (edited(version="one"), "version", "valid integer"),
            (edited(version=2), "version", "is 2, this program reads 1"),
            (edited(layer={}), "layer", "not permitted"),
            (edited(layers=[]), "layers", "valid dictionary"),
            (edited(layers={"a.b": "int4/channel"}), r"layers\.a\.b", "valid dictionary"),
            (edited(layers={"a.b": {}}), r"layers\.a\.b\.weight", "required"),
            (edited(layers={"a.b": {"weight": 4}}), r"layers\.a\.b\.weight", "valid string"),
            (
                edited(layers={"a": {"weight": "float", "bits": 4}}),
                r"layers\.a\.bits",
                "not permitted",
            ),
            (
                edited(layers={"a": {"weight": "float", "reason": 4}}),
                r"layers\.a\.reason",
                "valid string",
            ),
            (edited(model=3), "model", "valid string"),
            (edited(context=[]), "context", "valid dictionary"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_a_wrong_field(self, value: Any, where: str, why: str, tmp_path: Path):
        path = tmp_path / "plan.json"
        path.write_text(json.dumps(value))
        with pytest.raises(PlanError, match=rf"plan\.json: field {where}: .*{why}"):
            Plan.load(path)

    @pytest.mark.parametrize(
        "layer",
        [
            {"weight": "int4"},
            {"weight": "int4/channel", "activation": "int8"},
            {"weight": "float", "activation": "int8/token"},
        ],
        ids=["weight", "activation", "activation-alone"],
    )
    def test_a_wrong_format_names_its_layer(self, layer: dict[str, str], tmp_path: Path):
        path = tmp_path / "plan.json"
        path.write_text(json.dumps(edited(layers={"ok": {"weight": "float"}, "mid.ff": layer})))
        bad = layer.get("activation", layer["weight"])
        with pytest.raises(PlanError, match=rf"plan\.json: layer mid\.ff: .*'{bad}'"):
            Plan.load(path)

    @pytest.mark.parametrize(
        "content",
        [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"version": ' + b"9" * 5000 + b"}", b"\x00"],
        ids=["empty", "cut", "not-utf8", "deep", "long-number", "zeros"],
    )
    def test_a_file_that_is_not_json(self, content: bytes, tmp_path: Path):
        path = tmp_path / "plan.json"
        path.write_bytes(content)
        with pytest.raises(PlanError, match=r"plan\.json: "):
            Plan.load(path)

    def test_a_missing_file(self, tmp_path: Path):
        with pytest.raises(PlanError, match=r"plan\.json: no such file"):
            Plan.load(tmp_path / "plan.json")

    def test_a_folder(self, tmp_path: Path):
        with pytest.raises(PlanError, match="cannot be read"):
            Plan.load(tmp_path)

    def test_the_source_is_named_as_the_caller_names_it(self):
        with pytest.raises(PlanError, match=r"^config\.json: field version"):
            Plan.from_dict({}, "config.json")


class TestDiff:
    def test_equal_plans_do_not_differ(self):
        assert diff(PLAN, Plan(PLAN.choices, model="another")) == ()

    def test_changed_missing_and_new_layers_are_told(self):
        right = Plan({"mid.attn.to_q": W4, "mid.ff": PLAN["mid.ff"], "conv_out": W4A8})
        assert diff(PLAN, right) == (
            Difference("conv_in", FLOAT, None),
            Difference("mid.attn.to_q", W4A8, W4),
            Difference("conv_out", None, W4A8),
        )

    @given(left=plans(), right=plans())
    def test_the_other_way_round_it_is_mirrored(self, left: Plan, right: Plan):
        mirrored = {Difference(d.layer, d.right, d.left) for d in diff(right, left)}
        assert set(diff(left, right)) == mirrored


class TestPrinting:
    def test_every_layer_stands_with_its_choice_and_reason(self):
        lines = str(PLAN).splitlines()
        assert "Plan for emoji-turbo: 3 layers" in lines[0]
        for name, choice in PLAN.choices.items():
            (line,) = [line for line in lines if f" {name} " in line]
            assert choice.weight in line
            assert choice.activation in line
            assert PLAN.reasons.get(name, "") in line

    def test_the_summary_counts_the_choices(self):
        plan = Plan({"a": W4, "b": W4, "c": FLOAT})
        rows = [line.split() for line in str(plan).splitlines()]
        assert ["│", "int4/channel", "│", "float", "│", "2", "│"] in rows
        assert ["│", "float", "│", "float", "│", "1", "│"] in rows

    def test_brackets_are_printed_not_interpreted(self):
        plan = Plan({"blocks[red]0": W4}, "a[bold]b", {"blocks[red]0": "kept [/why]"})
        for text in ("blocks[red]0", "a[bold]b", "kept [/why]"):
            assert text in str(plan)

    def test_a_long_name_stays_on_one_line(self):
        name = "up_blocks.0.attentions.1.transformer_blocks.0.attn2.processor.to_out.0"
        plan = Plan({name: W4A8}, reasons={name: "kept because " + "of this and that " * 10})
        assert name in str(plan)

    def test_an_empty_plan_prints(self):
        assert "a model: 0 layers" in str(Plan({}))
