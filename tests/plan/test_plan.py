import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.errors import FormatError, PlanError, UsageError
from mezzotint.formats import MINMAX, MSE, RangeSearch
from mezzotint.plan import (
    CLIPS,
    VERSION,
    CalibrationSettings,
    CallSelection,
    Choice,
    Difference,
    Encoding,
    Plan,
    Planned,
    Sampling,
    calibration_diff,
    diff,
    dumps,
)
from mezzotint.runtime import ConstantTokens, SplitInput

FLOAT = Choice()
W4 = Choice("int4/channel")
W4A8 = Choice("int4/channel", "int8/token")
TEXT = Choice("int4/channel", "int8/token", structures=(ConstantTokens(1),))
ONE = {"kind": "constant_tokens", "count": 1}
UNCHECKED = ConstantTokens(1, checked=False)
SHORTCUT = Choice("int4/channel", structures=(SplitInput(320),))

PLAN = Plan(
    choices={"conv_in": FLOAT, "mid.attn.to_q": W4A8, "mid.ff": Choice("uint3/group64")},
    model="emoji-turbo",
    reasons={"conv_in": "the first layer sees the noise itself"},
    context={"recipe": "auto", "seed": 0, "budget": {"size": None, "weight_bits": 3.5}},
)

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
numbers = st.integers(1, 2000)
constant_tokens, splits = (
    st.builds(ConstantTokens, numbers, st.booleans()),
    st.builds(SplitInput, numbers),
)
structures = st.tuples(constant_tokens) | st.tuples(splits) | st.tuples(constant_tokens, splits)
choices = st.sampled_from([FLOAT, W4, W4A8, Choice("uint3/group64", "uint8/tensor")]) | st.builds(
    lambda structure: Choice("uint3/group64", "uint8/tensor", structure), structures
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(-1e9, 1e9) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
searches = st.sampled_from([MINMAX, MSE]) | st.builds(
    RangeSearch, st.integers(1, 100), st.floats(0.01, 1), st.floats(0.1, 9)
)
encodings = st.builds(
    Encoding,
    searches,
    st.sampled_from(["nearest", "feedback"]),
    bias_correction=st.booleans(),
    clip=st.sampled_from(CLIPS),
)
samplings = st.builds(
    Sampling,
    prompts=st.lists(names, min_size=1, max_size=3).map(tuple),
    seed=st.integers(0, 2**60),
    steps=st.none() | st.integers(1, 100),
    guidance=st.none() | st.floats(0, 20),
    batch=st.integers(1, 64),
)
settings = st.builds(
    CalibrationSettings,
    sampling=st.none() | samplings,
    calls=st.none() | st.integers(1, 10**6),
    momentum=st.none() | st.floats(0, 1, exclude_max=True),
    selection=st.none()
    | st.builds(CallSelection, calls=st.integers(1, 99), samples=st.integers(1, 99)),
)


@st.composite
def plans(draw) -> Plan:
    chosen = draw(st.dictionaries(names, choices, max_size=6))
    packed = sorted(name for name, choice in chosen.items() if choice.quantized)
    special = draw(st.sets(st.sampled_from(packed))) if packed else set()
    reasoned = draw(st.sets(st.sampled_from(sorted(chosen)))) if chosen else set()
    return Plan(
        choices=chosen,
        model=draw(st.none() | names),
        reasons={name: draw(names) for name in sorted(reasoned)},
        context=draw(st.dictionaries(names, json_values, max_size=3)),
        encoding=draw(encodings),
        encodings={name: draw(encodings) for name in sorted(special)},
        calibration=draw(st.none() | settings),
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
        plan = Plan.from_dict({"version": 3, "layers": {"a": {"weight": "int4/channel"}}})
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
            "b": {"weight": "int4/tensor", "activation": "int8/token", "constant_tokens": 1},
            "c": {"weight": "int4/tensor", "split": 320, "constant_tokens": 0},
        }
        plan = Plan.from_dict({"version": 1, "layers": layers})
        assert plan == Plan(
            {
                "b": replace(TEXT, weight="int4/tensor", structures=(UNCHECKED,)),
                "c": replace(SHORTCUT, weight="int4/tensor"),
            }
        )


class TestConstantTokensOfOldVersions:
    """Before version 4, they stored nothing of the tokens that they stand for."""

    LAYERS: ClassVar = {"a": {"weight": "int4/channel", "structures": [dict(ONE)]}}

    @pytest.mark.parametrize("version", [2, 3])
    def test_they_are_unchecked(self, version: int):
        plan = Plan.from_dict({"version": version, "layers": self.LAYERS})
        assert plan["a"].structures == (UNCHECKED,)
        assert Plan.from_dict(plan.to_dict()) == plan

    def test_later_ones_are_checked(self):
        plan = Plan.from_dict(edited(layers=self.LAYERS))
        assert plan["a"].structures == (ConstantTokens(1),)

    def test_old_versions_cannot_ask_for_the_check(self):
        layers = {"a": {"weight": "int4/channel", "structures": [{**ONE, "checked": True}]}}
        with pytest.raises(
            PlanError, match=r"structures\.0\.checked: goes with version 4 and later"
        ):
            Plan.from_dict({"version": 3, "layers": layers})


def edited(**changes: Any) -> dict[str, Any]:
    return PLAN.to_dict() | changes


class TestEncodings:
    """Encodings in JSON: for all layers at the top, exceptions beside their layers."""

    LAYERS: ClassVar = {"a": {"weight": "int4/channel"}, "b": {"weight": "int4/channel"}}

    def test_a_plan_that_says_nothing_has_the_defaults(self):
        plan = Plan.from_dict({"version": 2, "layers": self.LAYERS})
        assert plan.encoding == Encoding() == Encoding(MSE, "nearest")
        assert plan.encoding_of("a") == Encoding()

    def test_a_default_for_all_stands_at_the_top(self):
        plan = Plan.from_dict(
            {"version": 2, "encoding": {"search": "minmax"}, "layers": self.LAYERS}
        )
        assert plan.encoding_of("a") == plan.encoding_of("b") == Encoding(MINMAX)

    def test_a_layer_may_be_an_exception(self):
        layers = self.LAYERS | {"b": {"weight": "int4/channel", "encoding": {"search": "minmax"}}}
        plan = Plan.from_dict({"version": 2, "layers": layers})
        assert (plan.encoding_of("a"), plan.encoding_of("b")) == (Encoding(), Encoding(MINMAX))
        assert plan.to_dict()["layers"]["b"]["encoding"] == {"search": "minmax"}
        assert "encoding" not in plan.to_dict()["layers"]["a"]

    def test_an_exception_that_is_none_is_not_kept(self):
        plan = Plan({"a": W4, "b": W4}, encodings={"b": Encoding()})
        assert plan == Plan({"a": W4, "b": W4})

    def test_a_search_may_be_given_in_numbers(self):
        search = {"steps": 80, "lowest": 0.5, "power": 2.4}
        plan = Plan.from_dict({"version": 2, "encoding": {"search": search}, "layers": {}})
        assert plan.encoding == Encoding(RangeSearch(80, 0.5, 2.4))
        assert plan.to_dict()["encoding"]["search"] == search

    def test_an_order_of_channels_is_written_where_it_is_not_the_usual_one(self):
        assert "order" not in Plan({"a": W4}).to_dict()["encoding"]
        stored = Plan({"a": W4, "b": W4}, encodings={"b": Encoding(order="stored")})
        assert stored.to_dict()["layers"]["b"]["encoding"] == {"order": "stored"}
        assert Plan.from_dict(stored.to_dict()) == stored

    def test_the_usual_order_may_be_the_exception(self):
        plan = Plan({"a": W4, "b": W4}, encoding=Encoding(order="stored"))
        usual = replace(plan, encodings={"b": Encoding()})
        assert usual.to_dict()["encoding"]["order"] == "stored"
        assert usual.to_dict()["layers"]["b"]["encoding"] == {"order": "kurtosis"}
        assert Plan.from_dict(usual.to_dict()) == usual

    def test_error_feedback_and_bias_correction_are_written_where_they_are_asked_for(self):
        assert "bias_correction" not in Plan({"a": W4}).to_dict()["encoding"]
        looking = Encoding(rounding="feedback", bias_correction=True)
        plan = Plan({"a": W4, "b": W4}, encodings={"b": looking})
        written = plan.to_dict()["layers"]["b"]["encoding"]
        assert written == {"rounding": "feedback", "bias_correction": True}
        assert Plan.from_dict(plan.to_dict()) == plan
        assert str(looking) == "mse, feedback, bias corrected"

    def test_encodings_say_what_they_need_to_know_of_inputs(self):
        feedback, corrected = Encoding(rounding="feedback"), Encoding(bias_correction=True)
        assert feedback.needs_grams
        assert feedback.needs_moments(bias=False)
        assert not corrected.needs_grams
        assert corrected.needs_moments(bias=True)
        assert not corrected.needs_moments(bias=False)
        assert not Encoding().needs_moments(bias=True)
        assert not Encoding(rounding="trained").needs_moments(bias=True)

    @pytest.mark.parametrize("name", ["a", "nowhere"])
    def test_only_a_quantized_layer_has_one(self, name: str):
        with pytest.raises(PlanError, match=f"layer {name}: encoding: goes with a quantized"):
            Plan({"a": FLOAT, "b": W4}, encodings={name: Encoding(MINMAX)})

    def test_a_floating_layer_with_one_is_refused_in_a_file(self):
        layers = {"a": {"weight": "float", "encoding": {"search": "minmax"}}}
        with pytest.raises(PlanError, match=r"my\.json: layer a: encoding: goes with a quantized"):
            Plan.from_dict({"version": 2, "layers": layers}, "my.json")

    def test_an_unknown_rounding_is_refused(self):
        with pytest.raises(
            FormatError, match="unknown rounding 'up'; there are: feedback, nearest"
        ):
            Encoding(rounding="up")

    def test_an_unknown_order_is_refused(self):
        with pytest.raises(FormatError, match="order of channels 'up'; expected one of 'kurtosis'"):
            Encoding(order="up")


class TestVersion1:
    OLD: ClassVar = {
        "version": 1,
        "model": "emoji-turbo",
        "layers": {
            "conv_in": {"weight": "float", "activation": "float", "reason": "sees the noise"},
            "conv_out": {"weight": "uint4/channel", "activation": "uint8/tensor"},
        },
        "context": {"recipe": "auto"},
    }

    def test_it_means_what_it_meant(self):
        plan = Plan.from_dict(self.OLD)
        assert plan == Plan(
            {"conv_in": FLOAT, "conv_out": Choice("uint4/channel/float32", "uint8/tensor")},
            "emoji-turbo",
            {"conv_in": "sees the noise"},
            {"recipe": "auto"},
            encoding=Encoding(MSE, "nearest", "kurtosis"),
            calibration=None,
        )

    def test_it_is_written_as_the_newest_version(self):
        assert Plan.from_dict(self.OLD).to_dict()["version"] == VERSION

    @pytest.mark.parametrize(
        ("field", "changes"),
        [
            ("encoding", {"encoding": {}}),
            ("calibration", {"calibration": {"momentum": 0.9}}),
            (r"layers\.a\.encoding", {"layers": {"a": {"weight": "int4/channel", "encoding": {}}}}),
        ],
        ids=["encoding", "calibration", "layer"],
    )
    def test_it_has_no_field_of_version_2(self, field: str, changes: dict[str, Any]):
        with pytest.raises(PlanError, match=f"plan: field {field}: goes with version 2 and"):
            Plan.from_dict(self.OLD | changes)


@pytest.mark.parametrize("version", [1, 2])
class TestScalesOfOldVersions:
    """Until version 2, scales per channel were float32; what a plan means stays the same."""

    @pytest.mark.parametrize(
        "weight",
        ["int4/channel", "uint8/channel", "mixed/int2:64,int3:64", "mixed/uint1:2,uint8:2"],
    )
    def test_scales_per_channel_are_float32(self, version: int, weight: str):
        plan = Plan.from_dict({"version": version, "layers": {"a": {"weight": weight}}})
        assert plan["a"].weight == f"{weight}/float32"
        assert Plan.from_dict(plan.to_dict()) == plan

    @pytest.mark.parametrize(
        "weight", ["int4/tensor", "uint4/group64", "kmeans4/channel", "kmeans3/tensor", "float"]
    )
    def test_other_formats_are_the_same_as_today(self, version: int, weight: str):
        plan = Plan.from_dict({"version": version, "layers": {"a": {"weight": weight}}})
        assert plan["a"].weight == weight

    def test_an_unknown_format_is_repeated_as_it_stands(self, version: int):
        layers = {"a": {"weight": "int99/channel"}}
        with pytest.raises(PlanError, match="layer a: weight format 'int99/channel"):
            Plan.from_dict({"version": version, "layers": layers})


class TestCalibrationSettings:
    @pytest.mark.parametrize("momentum", [-0.1, 1.0, float("nan")])
    def test_a_momentum_is_a_share(self, momentum: float):
        with pytest.raises(UsageError, match="momentum: is"):
            CalibrationSettings(momentum=momentum)

    def test_it_prints_its_terms(self):
        settings = CalibrationSettings(Sampling(("owl", "apple"), seed=3, steps=4), 8, 0.95)
        assert str(settings) == (
            "momentum 0.95, calls 8, prompts 2, seed 3, steps 4, guidance the pipeline's, batch 8"
        )
        assert str(CalibrationSettings()) == "momentum none, calls unknown, sampling not stated"


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
            (edited(version=5), "version", "is 5, this program reads 1, 2, 3 and 4"),
            (edited(version=1), "encoding", "goes with version 2 and later, not with 1"),
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
            (edited(encoding="mse"), "encoding", "valid dictionary"),
            (edited(encoding={"seek": "mse"}), r"encoding\.seek", "not permitted"),
            (edited(encoding={"search": 3}), r"encoding\.search\.str", "valid string"),
            (edited(encoding={"search": "best"}), "encoding", "'best' is not a range search"),
            (edited(encoding={"search": {}}), r"encoding\.search\.\w+", "required|valid string"),
            (edited(encoding={"search": {"steps": 0}}), "encoding", "steps is 0"),
            (edited(encoding={"rounding": "up"}), "encoding", "'up'; there are: feedback, nearest"),
            (edited(encoding={"order": "up"}), "encoding", "'up'; expected one of 'kurtosis'"),
            (edited(encoding={"order": 1}), r"encoding\.order", "valid string"),
            (
                edited(encoding={"bias_correction": 1}),
                r"encoding\.bias_correction",
                "valid boolean",
            ),
            (
                edited(encoding={"rounding": "trained", "bias_correction": True}),
                "encoding",
                "bias_correction: rounding 'trained' leaves nothing to correct",
            ),
            (edited(encoding={"clip": "p50"}), "encoding", "clip: there is no 'p50'"),
            (edited(calibration=3), "calibration", "valid dictionary"),
            (edited(calibration={"momentum": 1}), "calibration", "momentum: is 1"),
            (edited(calibration={"calls": 0}), "calibration", "calls: is 0"),
            (
                edited(calibration={"selection": {"calls": 8}}),
                r"calibration\.selection\.samples",
                "required",
            ),
            (
                edited(calibration={"selection": {"calls": 0, "samples": 8}}),
                "calibration",
                "calls: is 0",
            ),
            (edited(calibration={"sampling": {}}), r"calibration\.sampling\.prompts", "required"),
            (edited(calibration={"sampling": {"prompts": []}}), "calibration", "none given"),
            (
                edited(calibration={"sampling": {"prompts": ["owl"], "batch": None}}),
                r"calibration\.sampling\.batch",
                "valid integer",
            ),
            (
                edited(layers={"a": {"weight": "int4/channel", "encoding": {"search": 1}}}),
                r"layers\.a\.encoding\.search\.str",
                "valid string",
            ),
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
            ({"structures": [ONE, ONE]}, "constant_tokens stands twice"),
            ({"structures": [ONE], "split": 8}, "older form of structures; keep only structures"),
            ({"structures": [{"kind": "x"}]}, "unknown structure 'x'; there are: constant_tokens"),
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
            Difference("conv_in", Planned(FLOAT), None),
            Difference("mid.attn.to_q", Planned(W4A8, Encoding()), Planned(W4, Encoding())),
            Difference("conv_out", None, Planned(W4A8, Encoding())),
        )

    def test_structure_is_a_difference(self):
        left, right = Plan({"a": W4A8, "b": W4}), Plan({"a": TEXT, "b": W4})
        (found,) = diff(left, right)
        assert found == Difference("a", Planned(W4A8, Encoding()), Planned(TEXT, Encoding()))

    def test_encodings_are_a_difference_of_quantized_layers(self):
        left = Plan({"a": W4, "b": W4, "c": FLOAT}, encodings={"b": Encoding(MINMAX)})
        right = Plan(left.choices, encoding=Encoding(MINMAX))
        (found,) = diff(left, right)
        assert found == Difference("a", Planned(W4, Encoding()), Planned(W4, Encoding(MINMAX)))
        assert found.to_dict()["right"] == {
            "weight": "int4/channel",
            "activation": "float",
            "encoding": {"search": "minmax", "rounding": "nearest"},
        }

    def test_orders_of_channels_are_a_difference(self):
        left = Plan({"a": W4})
        (found,) = diff(left, replace(left, encoding=Encoding(order="stored")))
        assert found.left is not None
        assert found.to_dict()["right"]["encoding"]["order"] == "stored"

    def test_calibrations_differ_by_setting(self):
        def plan(**changes: Any) -> Plan:
            fields = {"sampling": Sampling(("owl",)), "calls": 4, "momentum": 0.95} | changes
            return Plan({"a": W4}, calibration=CalibrationSettings(**fields))

        assert calibration_diff(plan(), plan()) == {}
        assert calibration_diff(plan(), plan(momentum=None)) == {"momentum": (0.95, None)}
        other = plan(sampling=Sampling(("owl",), seed=3))
        assert calibration_diff(plan(), other) == {"seed": (0, 3)}
        assert calibration_diff(Plan({}), plan())["prompts"] == (None, ["owl"])
        few = plan(selection=CallSelection(8, 4))
        assert calibration_diff(plan(), few) == {"selection": (None, {"calls": 8, "samples": 4})}

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

    def test_how_weights_are_rounded_and_ranges_found_stands_below(self):
        settings = CalibrationSettings(Sampling(("owl",)), 4, 0.95)
        printed = str(Plan({"a": W4}, encoding=Encoding(MINMAX), calibration=settings))
        assert "encoding: minmax, nearest" in printed
        assert "calibration: momentum 0.95, calls 4" in printed
        few = Plan({"a": W4}, calibration=replace(settings, selection=CallSelection(6, 5)))
        assert "calls 4 (at most 6 of 5 samples)" in " ".join(str(few).split())

    def test_an_order_of_channels_is_shown_where_it_is_not_the_usual_one(self):
        assert "order" not in str(Plan({"a": W4}))
        printed = str(Plan({"a": W4}, encoding=Encoding(order="stored")))
        assert "encoding: mse, nearest, stored order" in printed

    def test_encodings_are_shown_by_layer_where_they_differ(self):
        special = Encoding(RangeSearch(80, 0.5, 2.4))
        plan = Plan({"a": W4, "b": W4, "c": FLOAT}, encodings={"b": special})
        rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in str(plan).splitlines()]
        text = "80 steps down to 0.5 by power 2.4, nearest"
        assert ["a", "int4/channel", "float", "mse, nearest", ""] in rows
        assert ["b", "int4/channel", "float", text, ""] in rows
        assert ["c", "float", "float", "", ""] in rows
        assert ["int4/channel", "float", text, "1"] in rows

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


SAMPLING = {"prompts": ["owl"]}


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"encoding": {"search": {"steps": 4, "power": 10**400}}}, "encoding: power is 1000"),
        ({"encoding": {"search": {"steps": 10**400}}}, "encoding: steps is 1000"),
        ({"calibration": {"sampling": SAMPLING | {"guidance": 10**400}}}, "calibration: guidance"),
        ({"calibration": {"sampling": SAMPLING | {"steps": 10**400}}}, "calibration: steps"),
        ({"calibration": {"sampling": SAMPLING | {"batch": 10**400}}}, "calibration: batch"),
    ],
    ids=["power", "search steps", "guidance", "steps", "batch"],
)
def test_huge_integers_are_out_of_range(tmp_path, fields, word):
    (tmp_path / "plan.json").write_text(json.dumps({"version": 2, "layers": {}} | fields))
    with pytest.raises(PlanError, match=f"plan.json: field {word}"):
        Plan.load(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ('"model": "a\\ud800"', "field model: 'a\\ud800' holds half of a surrogate pair"),
        ('"context": {"notes": ["\\udc00"]}', "field context.notes.0: "),
        ('"context": {"\\ud800": 1}', "field context: "),
        ('"context": {"a": [1e999]}', "field context.a.0: is inf; expected a finite number"),
        ('"context": {"a": NaN}', "field context.a: is nan; expected a finite number"),
    ],
    ids=["text", "text inside", "key", "infinite", "NaN"],
)
def test_what_json_cannot_be_written_with_is_refused(tmp_path: Path, fields: str, word: str):
    (tmp_path / "plan.json").write_text(f'{{"version": 2, "layers": {{}}, {fields}}}')
    with pytest.raises(PlanError) as caught:
        Plan.load(tmp_path / "plan.json")
    assert str(caught.value).startswith(f"{tmp_path / 'plan.json'}: {word}")
