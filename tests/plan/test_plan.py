import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.errors import PlanError
from mezzotint.plan import VERSION, Choice, Difference, Plan, diff, dumps
from mezzotint.runtime import ConstantTokens, SplitInput

FLOAT = Choice()
W4 = Choice("int4/channel")
W4A8 = Choice("int4/channel", "int8/token")
TEXT = Choice("int4/channel", "int8/token", structures=(ConstantTokens(1),))
SHORTCUT = Choice("int4/channel", structures=(SplitInput(320),))

PLAN = Plan(
    choices={"conv_in": FLOAT, "mid.attn.to_q": W4A8, "mid.ff": Choice("uint3/group64")},
    model="emoji-turbo",
    reasons={"conv_in": "the first layer sees the noise itself"},
    context={"recipe": "auto", "seed": 0, "budget": {"size": None, "weight_bits": 3.5}},
)

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
numbers = st.integers(1, 2000)
constant_tokens, splits = st.builds(ConstantTokens, numbers), st.builds(SplitInput, numbers)
structures = st.tuples(constant_tokens) | st.tuples(splits) | st.tuples(constant_tokens, splits)
choices = st.sampled_from([FLOAT, W4, W4A8, Choice("uint3/group64", "uint8/tensor")]) | st.builds(
    lambda structure: Choice("uint3/group64", "uint8/tensor", structure), structures
)
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

    def test_structure_is_written_only_where_there_is_any(self):
        plan = Plan({"a": W4, "b": TEXT, "c": SHORTCUT})
        one = {"kind": "constant_tokens", "count": 1}
        two = {"kind": "split", "first": 320}
        assert plan.to_dict()["layers"] == {
            "a": {"weight": "int4/channel", "activation": "float"},
            "b": {"weight": "int4/channel", "activation": "int8/token", "structures": [one]},
            "c": {"weight": "int4/channel", "activation": "float", "structures": [two]},
        }

    def test_fields_of_a_structure_may_be_left_out_where_they_have_a_default(self):
        layer = {"weight": "int4/channel", "structures": [{"kind": "constant_tokens"}]}
        assert Plan.from_dict(edited(layers={"a": layer}))["a"].structures == (ConstantTokens(1),)

    def test_the_form_of_version_1_is_read(self):
        layers = {
            "b": {"weight": "int4/channel", "activation": "int8/token", "constant_tokens": 1},
            "c": {"weight": "int4/channel", "split": 320, "constant_tokens": 0},
        }
        plan = Plan.from_dict({"version": 1, "layers": layers})
        assert plan == Plan({"b": TEXT, "c": SHORTCUT})


ONE = {"kind": "constant_tokens", "count": 1}


def edited(**changes: Any) -> dict[str, Any]:
    return PLAN.to_dict() | changes


def structured(*structures: dict[str, Any]) -> dict[str, Any]:
    layer = {"weight": "int4/channel", "structures": list(structures)}
    return edited(layers={"a": layer})


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
            (
                edited(layers={"a": {"weight": "int4/channel", "split": 1.5}}),
                r"layers\.a\.split",
                "valid integer",
            ),
            (
                edited(layers={"a": {"weight": "int4/channel", "constant_tokens": "1"}}),
                r"layers\.a\.constant_tokens",
                "valid integer",
            ),
            (
                edited(layers={"a": {"weight": "int4/channel", "constant_tokens": True}}),
                r"layers\.a\.constant_tokens",
                "valid integer",
            ),
            (
                edited(layers={"a": {"weight": "int4/channel", "structures": [{}]}}),
                r"layers\.a\.structures\.0\.kind",
                "required",
            ),
            (
                structured({"kind": "split", "first": 1.5}),
                r"layers\.a\.structures\.0\.first",
                "valid integer",
            ),
            (structured({"kind": "split"}), r"layers\.a\.structures\.0\.first", "required"),
            (
                structured({"kind": "constant_tokens", "count": True}),
                r"layers\.a\.structures\.0\.count",
                "valid integer",
            ),
            (
                structured({"kind": "constant_tokens", "tokens": 1}),
                r"layers\.a\.structures\.0\.tokens",
                "[Uu]nexpected",
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
        ("fields", "why"),
        [
            ({"split": -1}, "split: first is -1; expected a whole number"),
            ({"constant_tokens": 2**16}, "constant_tokens: count is 65536; expected a whole"),
            ({"constant_tokens": 10**30}, "constant_tokens: count is 10+; expected a whole"),
            ({"weight": "float", "split": 8}, "split goes with a quantized weight"),
            ({"structures": [ONE, ONE]}, "constant_tokens cannot hold constant_tokens"),
            ({"structures": [ONE], "split": 8}, "older form of structures; keep only structures"),
            ({"structures": [{"kind": "x"}]}, "unknown structure 'x'; there are constant_tokens"),
        ],
        ids=["negative", "too-many", "huge", "floating", "twice", "both-forms", "unknown"],
    )
    def test_a_wrong_structure_names_its_layer(
        self, fields: dict[str, Any], why: str, tmp_path: Path
    ):
        path = tmp_path / "plan.json"
        path.write_text(json.dumps(edited(layers={"mid.ff": {"weight": "int4/channel"} | fields})))
        with pytest.raises(PlanError, match=rf"plan\.json: layer mid\.ff: .*{why}"):
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

    def test_structure_is_a_difference(self):
        left, right = Plan({"a": W4A8, "b": W4}), Plan({"a": TEXT, "b": W4})
        assert diff(left, right) == (Difference("a", W4A8, TEXT),)

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

    def test_structure_is_shown_where_a_layer_has_any(self):
        plan = Plan({"a": W4, "b": TEXT, "c": SHORTCUT, "d": SHORTCUT})
        printed = str(plan)
        rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines()]
        assert ["b", "int4/channel", "int8/token", "constant tokens: 1", ""] in rows
        assert ["int4/channel", "float", "split at 320", "2"] in rows
        assert "structure" in printed
        assert "structure" not in str(PLAN)

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
