"""A bank of quantized layers: what it holds, and what is packed from it."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mezzotint.bank import Bank, node_keys, verify_bank, weight_error
from mezzotint.errors import BankError, FormatError
from mezzotint.formats import QUA2SEDIMO, parse_weight_format
from mezzotint.models import Call
from mezzotint.plan import Choice, Encoding, LayerShape, Plan
from mezzotint.runtime import Calibration, SplitInput, encoded, packed_copy
from tests.bank.conftest import (
    FEEDBACK,
    FORMATS,
    NEAREST,
    SPLIT,
    built,
    calibration_of,
    candidates_of,
    layers_of,
    mixed,
)
from tests.models.tiny import smallest_unet


def same_state(left: nn.Module, right: nn.Module) -> bool:
    found, other = left.state_dict(), right.state_dict()
    return found.keys() == other.keys() and all(torch.equal(found[n], other[n]) for n in found)


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The formats that weights are encoded in from now on."""
    done: list[str] = []
    encode = encoded.encoded_part

    def counted(weight_format, *arguments):
        done.append(str(weight_format))
        return encode(weight_format, *arguments)

    monkeypatch.setattr(encoded, "encoded_part", counted)
    return done


class TestContent:
    def test_every_layer_has_a_file_of_its_own(self, bank: Bank, unet: nn.Module):
        files = {path.name for path in bank.folder.iterdir()}
        assert files == {"bank.json"} | {f"{name}.safetensors" for name in layers_of(unet)}

    def test_halves_of_a_split_input_have_keys_of_their_own(self, bank: Bank, unet: nn.Module):
        names = layers_of(unet)
        at = names.index(SPLIT)
        halves = [f"{SPLIT}/first", f"{SPLIT}/second"]
        assert list(bank.keys) == names[:at] + halves + names[at + 1 :]
        assert bank.weights(halves[0]) == 8 * 8 * 9
        assert node_keys("conv", (SplitInput(3),), LayerShape((4, 5))) == (
            "conv/first",
            "conv/second",
        )

    @pytest.mark.parametrize("name", FORMATS)
    def test_bytes_and_errors_are_those_of_a_round_trip(
        self, bank: Bank, unet: nn.Module, name: str
    ):
        weight_format = parse_weight_format(name)
        assert weight_format is not None
        weight = unet.get_submodule("conv_out").weight.detach()
        assert bank.stored_bytes("conv_out", name) == weight_format.stored_bytes(weight.shape)
        decoded = weight_format.roundtrip(weight, QUA2SEDIMO)
        expected = (weight.double() - decoded.double()).abs().pow(2.4).mean()
        assert bank.error("conv_out", name) == pytest.approx(float(expected), rel=1e-12)

    def test_the_error_is_a_mean_over_weights_in_float64(self):
        tiny = torch.full((4, 10_000), 1e-20)
        assert weight_error(tiny, torch.zeros_like(tiny)) == pytest.approx(1e-48, rel=1e-6)

    def test_it_says_what_was_rounded_and_how(self, bank: Bank, tmp_path: Path, unet: nn.Module):
        feedback = built(tmp_path / "feedback", unet, FEEDBACK)
        assert (bank.rounding, feedback.rounding) == ("nearest", "feedback")
        assert bank.formats == feedback.formats == FORMATS
        assert bank.digest == feedback.digest
        assert bank.inputs is None
        assert feedback.inputs is not None
        # White noise, which the first layer reads, has nothing to feed back.
        errors = [[each.error(key, FORMATS[0]) for key in bank.keys] for each in (bank, feedback)]
        assert sum(errors[0]) < sum(errors[1])

    def test_what_it_lacks_is_named(self, bank: Bank):
        with pytest.raises(BankError, match="no weight nothing"):
            bank.weights("nothing")
        with pytest.raises(BankError, match=r"no int8/channel of conv_in; there are: kmeans3"):
            bank.error("conv_in", "int8/channel")

    def test_a_pickle_names_the_folder(self, bank: Bank):
        again = pickle.loads(pickle.dumps(bank))
        assert again.digest == bank.digest
        assert len(pickle.dumps(bank)) < 500

    def test_where_there_is_no_such_folder_weights_are_encoded(
        self, tmp_path: Path, unet: nn.Module, encodings: list[str]
    ):
        bank = built(tmp_path / "bank", unet)
        plan, pickled = bank.plan(mixed(bank)), pickle.dumps(bank)
        expected = packed_copy(unet, plan, Calibration(encoded=bank))
        (tmp_path / "bank").rename(tmp_path / "elsewhere")
        encodings.clear()
        found = packed_copy(unet, plan, Calibration(encoded=pickle.loads(pickled)))
        assert same_state(found, expected)
        assert encodings


class TestPacking:
    @pytest.mark.parametrize("encoding", [NEAREST, FEEDBACK], ids=["nearest", "feedback"])
    def test_a_plan_packs_as_without_it_and_encodes_nothing(
        self, tmp_path: Path, unet: nn.Module, encodings: list[str], encoding: Encoding
    ):
        known = calibration_of(unet, encoding)
        bank = built(tmp_path / "bank", unet, encoding)
        plan = bank.plan(mixed(bank))
        assert plan.encoding == encoding
        expected = packed_copy(unet, plan, known)
        encodings.clear()
        assert same_state(packed_copy(unet, plan, Calibration(encoded=bank)), expected)
        assert encodings == []

    def test_what_it_does_not_hold_is_encoded_where_it_is_asked_for(
        self, bank: Bank, unet: nn.Module, encodings: list[str]
    ):
        plan = Plan({"conv_in": Choice("int8/channel"), "conv_out": Choice("uint3/channel")})
        plan = replace(plan, encoding=NEAREST, encodings={"conv_out": Encoding()})
        expected = packed_copy(unet, plan)
        encodings.clear()
        assert same_state(packed_copy(unet, plan, Calibration(encoded=bank)), expected)
        assert encodings == ["int8/channel", "uint3/channel"]

    def test_a_split_of_another_place_is_encoded_anew(self, bank: Bank, unet: nn.Module):
        plan = Plan({SPLIT: Choice(FORMATS[0], structures=(SplitInput(4),))}, encoding=NEAREST)
        expected = packed_copy(unet, plan)
        assert same_state(packed_copy(unet, plan, Calibration(encoded=bank)), expected)

    def test_bias_is_corrected_with_its_weights(
        self, bank: Bank, unet: nn.Module, encodings: list[str]
    ):
        corrected = replace(NEAREST, bias_correction=True)
        known = calibration_of(unet, corrected)
        plan = replace(bank.plan(mixed(bank)), encoding=corrected)
        expected = packed_copy(unet, plan, known)
        encodings.clear()
        assert same_state(packed_copy(unet, plan, replace(known, encoded=bank)), expected)
        assert encodings == []
        with pytest.raises(FormatError, match="bias_correction needs the calibrated moments"):
            packed_copy(unet, plan, Calibration(encoded=bank))

    @torch.no_grad()
    def test_halves_of_a_split_input_take_formats_of_their_own(
        self, bank: Bank, unet: nn.Module, calls: tuple[Call, ...]
    ):
        one, other = FORMATS[0], FORMATS[2]
        outputs = []
        for first, second in ((one, one), (one, other), (other, one)):
            formats = {f"{SPLIT}/first": first, f"{SPLIT}/second": second}
            plan = bank.plan(dict.fromkeys(bank.keys, one) | formats)
            assert [each.weight for each in plan[SPLIT].of_quantizers] == [first, second]
            packed = packed_copy(unet, plan, Calibration(encoded=bank))
            assert same_state(packed, packed_copy(unet, plan))
            outputs.append(calls[0].run(packed))
        assert not torch.equal(outputs[0], outputs[1])
        assert not torch.equal(outputs[1], outputs[2])

    def test_layers_of_a_configuration_may_stay_floating(self, bank: Bank):
        plan = bank.plan(mixed(bank) | {"conv_in": "float"}, activation="int8/token")
        assert plan["conv_in"] == Choice()
        assert plan["conv_out"].activation == "int8/token"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"nothing": "uint3/channel"}, "no weight nothing"),
            ({"conv_in": "int2/channel"}, "no int2/channel of conv_in"),
            ({f"{SPLIT}/first": "float"}, "quantized all or none"),
            (None, "says nothing of conv_in"),
        ],
        ids=["unknown", "no candidate", "half floating", "missing"],
    )
    def test_a_configuration_is_checked(
        self, bank: Bank, change: dict[str, str] | None, message: str
    ):
        configuration = mixed(bank) | (change or {})
        if change is None:
            del configuration["conv_in"]
        with pytest.raises(BankError, match=message):
            bank.plan(configuration)


class TestSwitching:
    @torch.no_grad()
    @pytest.mark.parametrize("encoding", [NEAREST, FEEDBACK], ids=["nearest", "feedback"])
    def test_outputs_are_those_of_the_packed_plan(
        self, tmp_path: Path, unet: nn.Module, calls: tuple[Call, ...], encoding: Encoding
    ):
        known = calibration_of(unet, encoding)
        bank = built(tmp_path / "bank", unet, encoding)
        switched = bank.switched(unet)
        outputs: list[Tensor] = []
        for seed in (0, 1, 0):
            configuration = mixed(bank, seed)
            packed = packed_copy(unet, bank.plan(configuration), known)
            denoiser = switched.take(configuration)
            assert same_state(denoiser, packed)
            outputs.append(calls[0].run(denoiser))
            assert torch.equal(outputs[-1], calls[0].run(packed))
        assert torch.equal(outputs[0], outputs[2])
        assert not torch.equal(outputs[0], outputs[1])

    @torch.no_grad()
    def test_the_original_stays_as_it_is(
        self, bank: Bank, unet: nn.Module, calls: tuple[Call, ...]
    ):
        before = calls[0].run(unet)
        bank.switched(unet).take(mixed(bank))
        assert torch.equal(calls[0].run(unet), before)
        assert same_state(unet, smallest_unet())

    def test_nothing_is_encoded_and_what_stays_is_not_replaced(
        self, bank: Bank, unet: nn.Module, encodings: list[str]
    ):
        switched = bank.switched(unet)
        first = mixed(bank)
        before = dict(switched.take(first).named_modules())
        other = next(name for name in FORMATS if name != first["conv_in"])
        after = dict(switched.take(first | {"conv_in": other}).named_modules())
        assert [name for name in before if before[name] is not after[name]] == ["conv_in"]
        assert encodings == []

    @torch.no_grad()
    def test_floating_layers_come_back(self, bank: Bank, unet: nn.Module, calls: tuple[Call, ...]):
        switched = bank.switched(unet)
        switched.take(mixed(bank))
        floating = switched.take(dict.fromkeys(bank.keys, "float"))
        assert torch.equal(calls[0].run(floating), calls[0].run(unet))

    @torch.no_grad()
    def test_inputs_are_rounded_where_that_is_asked_for(
        self, bank: Bank, unet: nn.Module, calls: tuple[Call, ...]
    ):
        outputs = [
            calls[0].run(bank.switched(unet, activation=activation).take(mixed(bank)))
            for activation in ("float", "int8/token", "int6/token")
        ]
        assert not torch.equal(outputs[0], outputs[1])
        assert not torch.equal(outputs[1], outputs[2])

    def test_a_bad_configuration_changes_nothing(self, bank: Bank, unet: nn.Module):
        switched = bank.switched(unet)
        before = dict(switched.take(mixed(bank)).named_modules())
        with pytest.raises(BankError, match="says nothing"):
            switched.take({"conv_in": FORMATS[0]})
        assert dict(switched.denoiser.named_modules()) == before


class TestOtherWeights:
    def test_a_bank_of_other_weights_is_refused_by_name(self, bank: Bank, unet: nn.Module):
        with torch.no_grad():
            unet.conv_out.weight[0, 0, 0, 0] += 1
        message = rf"{bank.folder}: is a bank of other weights than those of layer conv_out"
        with pytest.raises(BankError, match=message):
            bank.switched(unet)
        with pytest.raises(BankError, match=message):
            packed_copy(unet, bank.plan(mixed(bank)), Calibration(encoded=bank))

    def test_weights_that_change_in_between_are_noticed(self, bank: Bank, unet: nn.Module):
        bank.check(unet)
        with torch.no_grad():
            unet.conv_out.weight.mul_(2)
        with pytest.raises(BankError, match="layer conv_out"):
            bank.check(unet)

    def test_a_bank_of_another_model_is_refused(self, bank: Bank):
        with pytest.raises(BankError, match="Sequential does not have"):
            bank.check(nn.Sequential(nn.Linear(4, 4)))

    def test_a_cast_model_has_other_weights(self, bank: Bank, unet: nn.Module):
        with pytest.raises(BankError, match="other weights"):
            bank.check(unet.half())


def test_candidates_are_quantized_and_of_the_same_structures(tmp_path: Path, unet: nn.Module):
    some = candidates_of(unet)
    split = some[SPLIT][0]
    for wrong in ((), (Choice(),), (split, replace(split, structures=()))):
        with pytest.raises(BankError, match=f"layer {SPLIT}"):
            Bank.build(tmp_path / "bank", unet, {SPLIT: wrong})
    with pytest.raises(BankError, match="there are none"):
        Bank.build(tmp_path / "bank", unet, {})
    with pytest.raises(BankError, match="correct them where a plan is packed"):
        Bank.build(tmp_path / "bank", unet, some, Encoding(bias_correction=True))
    with pytest.raises(FormatError, match=r"layer .*: rounding 'feedback' needs"):
        Bank.build(tmp_path / "bank", unet, some, FEEDBACK)
    assert list(tmp_path.iterdir()) == []


class TestDigests:
    """A bank is the one that was written, bit for bit, or it is refused."""

    @pytest.fixture
    def damaged(self, bank_folder: Path, tmp_path: Path) -> Path:
        folder = shutil.copytree(bank_folder, tmp_path / "bank")
        path = folder / "conv_out.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        return folder

    def test_of_a_whole_one_all_files_are_verified(self, bank: Bank, unet: nn.Module):
        found = verify_bank(bank.folder)
        assert [each.name for each in found] == [f"{n}.safetensors" for n in layers_of(unet)]
        assert all(each.verified for each in found)

    def test_a_flipped_bit_is_found(self, damaged: Path):
        with pytest.raises(
            BankError, match=r"conv_out\.safetensors: is damaged \(conv_out.* build it anew"
        ):
            verify_bank(damaged)

    def test_a_flipped_bit_is_not_packed(self, damaged: Path, unet: nn.Module):
        bank = Bank.open(damaged)
        with pytest.raises(BankError, match=r"conv_out\.safetensors: is damaged"):
            bank.switched(unet).take(mixed(bank))

    def test_banks_of_version_1_are_read_and_said_to_be_unknown(
        self, bank_folder: Path, tmp_path: Path
    ):
        folder = shutil.copytree(bank_folder, tmp_path / "bank")
        index = json.loads((folder / "bank.json").read_text())
        index["version"] = 1
        for layer in index["layers"].values():
            del layer["sha256"]
        (folder / "bank.json").write_text(json.dumps(index))
        assert Bank.open(folder).keys
        assert not any(each.verified for each in verify_bank(folder))
