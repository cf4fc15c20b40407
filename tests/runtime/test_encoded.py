"""Weights encoded once serve whoever packs or measures them again."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mezzotint.calibration import calibrated
from mezzotint.errors import FormatError, UsageError
from mezzotint.formats import MINMAX, MSE
from mezzotint.models import Call
from mezzotint.plan import Choice, Encoding, Plan
from mezzotint.runtime import (
    Calibration,
    ConstantTokens,
    EncodedWeights,
    LayerToEncode,
    PackedLayer,
    SplitInput,
    encoded,
    pack_layer,
    pack_module,
)
from tests.runtime.layers import noise

FEEDBACK = Encoding(MINMAX, "feedback", bias_correction=True)
TEXT = torch.cat([torch.ones(4, 1, 12), noise(4, 5, 12) + 0.5], 1)
CHOICES = {
    "plain": Choice("int3/channel", "int8/token"),
    "mixed": Choice("mixed/int2:4,int4:4"),
    "split": Choice("int3/channel", structures=(SplitInput(5),)),
    "halves": Choice(
        "int3/channel", structures=(SplitInput(5),), part_formats=(("second", "kmeans2/channel"),)
    ),
    "constant": Choice("kmeans2/tensor", structures=(ConstantTokens(1),)),
    "both": Choice("int3/channel", structures=(ConstantTokens(1), SplitInput(5))),
}


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(12, 8)


def known(choice: Choice) -> Calibration:
    """Of a layer that reads `TEXT`."""
    model, calls = nn.Sequential(layer()), [Call((TEXT,), {})]
    return calibrated(model, Plan({"0": choice}, encoding=FEEDBACK), calls)


def with_encoded(calibration: Calibration, place: Path | None = None) -> Calibration:
    return Calibration(
        calibration.input_ranges,
        calibration.tensors,
        moments=calibration.moments,
        encoded=EncodedWeights(place),
    )


def state(choice: Choice, calibration: Calibration, encoding: Encoding = FEEDBACK) -> dict:
    plan = Plan({"0": choice}, encoding=encoding)
    return pack_layer("0", layer(), plan, calibration).state_dict()


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


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


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_layers_are_packed_as_without_them(choice: Choice):
    calibration = known(choice)
    held = with_encoded(calibration)
    for _ in range(2):
        assert same(state(choice, held), state(choice, calibration))


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_weight_and_bias_are_those_of_the_packed_layer(choice: Choice):
    calibration = with_encoded(known(choice))
    made = pack_layer("0", layer(), Plan({"0": choice}, encoding=FEEDBACK), calibration)
    asked = LayerToEncode("0", layer(), choice, FEEDBACK, calibration)
    assert calibration.encoded is not None
    assert torch.equal(calibration.encoded.weight(asked), made.dequantized_weight())
    shift = calibration.encoded.bias_shift(asked)
    assert torch.equal(layer().bias + shift, made.bias)


def test_each_half_is_encoded_in_its_own_format(encodings: list[str]):
    calibration = with_encoded(known(CHOICES["split"]))
    for name in ("halves", "split", "halves"):
        state(CHOICES[name], calibration)
    assert encodings == ["int3/channel", "kmeans2/channel", "int3/channel", "int3/channel"]


def test_a_weight_is_encoded_once(encodings: list[str]):
    choice = CHOICES["plain"]
    calibration = with_encoded(known(choice))
    state(choice, calibration)
    state(choice, calibration)
    assert encodings == ["int3/channel"]


def test_the_format_of_inputs_makes_no_difference(encodings: list[str]):
    calibration = with_encoded(known(CHOICES["plain"]))
    for activation in ("int8/token", "uint8/token", "float"):
        state(Choice("int3/channel", activation), calibration)
    assert encodings == ["int3/channel"]


def test_nor_do_their_range_and_the_bias(encodings: list[str]):
    calibration = with_encoded(known(CHOICES["plain"]))
    for encoding in (
        FEEDBACK,
        Encoding(MINMAX, "feedback"),
        Encoding(MINMAX, "feedback", clip="mse"),
    ):
        alone = state(CHOICES["plain"], known(CHOICES["plain"]), encoding)
        assert same(state(CHOICES["plain"], calibration, encoding), alone)
    assert encodings == ["int3/channel"]


def test_formats_and_encodings_are_kept_apart(encodings: list[str]):
    calibration = with_encoded(known(CHOICES["plain"]))
    for name in ("int3/channel", "int4/channel"):
        for encoding in (FEEDBACK, Encoding(MSE, "feedback"), Encoding(MSE)):
            made, alone = (
                state(Choice(name), each, encoding)
                for each in (calibration, known(CHOICES["plain"]))
            )
            assert same(made, alone)
    assert len(encodings) == 6


def test_without_correction_or_bias_there_is_no_shift():
    calibration = with_encoded(known(CHOICES["plain"]))
    held, choice = calibration.encoded, Choice("int3/channel")
    assert held is not None
    for module, encoding in (
        (layer(), Encoding(MINMAX)),
        (nn.Linear(12, 8, bias=False), FEEDBACK),
    ):
        asked = LayerToEncode("0", module, choice, encoding, calibration)
        assert held.bias_shift(asked) is None


def test_no_file_is_left_however_the_process_ends(tmp_path: Path, encodings: list[str]):
    choice = CHOICES["split"]
    calibration = with_encoded(known(choice), tmp_path)
    for _ in range(2):
        assert same(state(choice, calibration), state(choice, known(choice)))
        assert not list(tmp_path.iterdir())
    assert encodings == ["int3/channel"] * 2  # one for each part


def test_packed_layers_outlive_them(tmp_path: Path):
    choice = CHOICES["plain"]
    calibration = with_encoded(known(choice), tmp_path)
    model = nn.Sequential(layer())
    pack_module(model, Plan({"0": choice}, encoding=FEEDBACK), calibration)
    expected = state(choice, known(choice))
    del calibration
    packed = model[0]
    assert isinstance(packed, PackedLayer)
    assert same(packed.state_dict(), expected)


def test_a_folder_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encodings: list[str]
):
    def full(tensors: object, file: Path) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    choice = CHOICES["plain"]
    calibration = with_encoded(known(choice), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(encoded, "save_file", full)
        with pytest.raises(UsageError, match=r"No space left.*TMPDIR"):
            state(choice, calibration)
    assert same(state(choice, calibration), state(choice, known(choice)))


def test_another_process_encodes_for_itself(encodings: list[str]):
    calibration = with_encoded(known(CHOICES["plain"]))
    expected = state(CHOICES["plain"], calibration)
    again = pickle.loads(pickle.dumps(calibration))
    assert same(state(CHOICES["plain"], again), expected)
    assert encodings == ["int3/channel"] * 2


def test_what_is_encoded_already_needs_no_moments():
    encoding, choice = Encoding(MINMAX, "feedback"), CHOICES["plain"]
    calibration = with_encoded(known(choice))
    expected = state(choice, calibration, encoding)
    assert same(state(choice, Calibration(encoded=calibration.encoded), encoding), expected)
    with pytest.raises(FormatError, match="needs the calibrated moments"):
        state(choice, Calibration(encoded=calibration.encoded), FEEDBACK)


@pytest.mark.parametrize("weight", ["int3/channel", "lut3/channel", "int4/group16"])
def test_codes_are_the_same_within_autocast(weight: str):
    choice = Choice(weight)
    with torch.autocast("cpu", torch.bfloat16):
        found = state(choice, known(choice))
    assert same(found, state(choice, known(choice)))


def test_a_folder_where_nothing_can_be_written_is_named(tmp_path: Path):
    choice = Choice("int3/channel")
    with pytest.raises(UsageError, match=r"nowhere.*TMPDIR"):
        state(choice, with_encoded(known(choice), tmp_path / "nowhere"))


def test_trained_weights_pass_by(encodings: list[str]):
    from mezzotint.runtime import GridValues

    fmt = Choice("int3/channel").weight_format
    assert fmt is not None
    grid = fmt.grid(layer().weight, MINMAX)
    values = grid.values(grid.nearest(layer().weight.detach() * 0.5))
    calibration = Calibration(weights={"0": (GridValues(values),)}, encoded=EncodedWeights())
    plan = Plan({"0": Choice("int3/channel")}, encoding=Encoding(MINMAX, "trained"))
    assert torch.equal(pack_layer("0", layer(), plan, calibration).dequantized_weight(), values)
    assert encodings == []
