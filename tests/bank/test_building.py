"""Banks are complete or absent, and building goes on after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mezzotint.bank import Bank, building
from mezzotint.errors import BankError, FormatError, MezzotintError
from mezzotint.plan import Choice, Encoding
from tests.bank.conftest import FEEDBACK, FORMATS, NEAREST, built, candidates_of, layers_of, mixed

KILLED = """
import os, signal, sys
from tests.bank.conftest import built
from tests.models.tiny import smallest_unet
from pathlib import Path

renamed = 0

def die_at_the_fourth_file(event, arguments):
    global renamed
    if event == "os.rename":
        renamed += 1
        if renamed == 4:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die_at_the_fourth_file)
built(Path(sys.argv[1]), smallest_unet().eval())
"""


@pytest.fixture
def encoded_layers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Layers that are encoded from now on."""
    done: list[str] = []
    encode = building.encoded_candidates

    def counted(asked, choices):
        done.append(asked.name)
        return encode(asked, choices)

    monkeypatch.setattr(building, "encoded_candidates", counted)
    return done


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_killed_build_goes_on(
    tmp_path: Path, bank_folder: Path, unet: nn.Module, encoded_layers: list[str]
):
    target = tmp_path / "bank"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(target)], env=environment, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    built(target, unet)
    assert encoded_layers == layers_of(unet)[3:]
    assert content(target) == content(bank_folder)
    assert [path.name for path in tmp_path.iterdir()] == ["bank"]


def test_a_layer_whose_bits_have_changed_is_encoded_again(bank_folder: Path, tmp_path: Path):
    path = shutil.copy(bank_folder / "conv_out.safetensors", tmp_path / "conv_out.safetensors")
    assert building.finished_layer(path) is not None
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert building.finished_layer(path) is None


def test_a_finished_bank_is_opened(bank_folder: Path, unet: nn.Module, encoded_layers: list[str]):
    before = content(bank_folder)
    built(bank_folder, unet)
    assert encoded_layers == []
    assert content(bank_folder) == before


def test_one_layer_is_held_at_a_time(tmp_path: Path, unet: nn.Module, monkeypatch):
    held: list[int] = []
    write = building.write_tensors

    def written(path, tensors, metadata):
        held.append(len({name.partition("|")[0].partition("/")[0] for name in tensors}))
        write(path, tensors, metadata)

    monkeypatch.setattr(building, "write_tensors", written)
    built(tmp_path / "bank", unet)
    assert held == [1] * len(layers_of(unet))


class TestRefusals:
    @pytest.mark.parametrize(
        ("what", "message"),
        [
            ("weights", "other weights, such as those of layer conv_in"),
            ("rounding", "weights that were rounded otherwise"),
            ("formats", "other formats of layer conv_in: kmeans3/tensor, kmeans4/channel"),
            ("layers", "other layers, such as conv_out"),
            ("structures", "layers of other structures"),
        ],
    )
    def test_a_bank_of_something_else_is_kept_and_named(
        self, bank_folder: Path, unet: nn.Module, what: str, message: str
    ):
        some, encoding = dict(candidates_of(unet)), NEAREST
        if what == "weights":
            with torch.no_grad():
                unet.conv_in.weight[0] = 0
        elif what == "rounding":
            encoding = Encoding()
        elif what == "formats":
            some["conv_in"] = some["conv_in"][:1]
        elif what == "layers":
            del some["conv_out"]
        else:
            some = {name: tuple(Choice(each) for each in FORMATS) for name in some}
        before = content(bank_folder)
        with pytest.raises(BankError, match=rf"{bank_folder}: is a bank of {message}"):
            Bank.build(bank_folder, unet, some, encoding)
        assert content(bank_folder) == before

    def test_one_of_other_calls_is_named(self, tmp_path: Path, unet: nn.Module, monkeypatch):
        built(tmp_path / "bank", unet, FEEDBACK)
        monkeypatch.setattr(building, "moments_digest", lambda moments: "another")
        with pytest.raises(BankError, match="rounded after other calls of the denoiser"):
            built(tmp_path / "bank", unet, FEEDBACK)

    def test_another_folder_is_left_alone(self, tmp_path: Path, unet: nn.Module):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(BankError, match="holds something else than a bank"):
            built(tmp_path, unet)
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

    def test_nan_is_named_and_leaves_nothing(self, tmp_path: Path, unet: nn.Module):
        some = candidates_of(unet)
        with torch.no_grad():
            unet.conv_out.weight[0] = torch.nan
        with pytest.raises(FormatError, match="layer conv_out: the weight holds NaN"):
            Bank.build(tmp_path / "bank", unet, some)
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_keeps_what_is_finished(
        self, tmp_path: Path, unet: nn.Module, monkeypatch, encoded_layers: list[str]
    ):
        write = building.write_tensors

        def full(path, tensors, metadata):
            if len(encoded_layers) == 3:
                raise OSError(28, "No space left on device")
            write(path, tensors, metadata)

        with monkeypatch.context() as patch:
            patch.setattr(building, "write_tensors", full)
            with pytest.raises(BankError, match=r"No space left.*finished layers are kept in"):
                built(tmp_path / "bank", unet)
        assert not (tmp_path / "bank").exists()
        encoded_layers.clear()
        built(tmp_path / "bank", unet)
        assert encoded_layers == layers_of(unet)[2:]


class TestDamage:
    @pytest.fixture
    def folder(self, tmp_path: Path, unet: nn.Module) -> Path:
        built(tmp_path / "bank", unet)
        return tmp_path / "bank"

    def test_there_is_no_bank(self, tmp_path: Path):
        with pytest.raises(BankError, match=f"{tmp_path}: holds no bank"):
            Bank.open(tmp_path)

    def test_a_file_is_missing(self, folder: Path):
        (folder / "conv_in.safetensors").unlink()
        with pytest.raises(BankError, match=r"conv_in.safetensors is missing"):
            Bank.open(folder)

    def test_a_file_is_cut_short(self, folder: Path, unet: nn.Module):
        path = folder / "conv_in.safetensors"
        path.write_bytes(path.read_bytes()[:-10])
        bank = Bank.open(folder)
        with pytest.raises(BankError, match=r"conv_in.safetensors: is damaged"):
            bank.switched(unet).take(mixed(bank))

    def test_a_file_is_of_another_layer(self, folder: Path, unet: nn.Module):
        (folder / "conv_out.safetensors").replace(folder / "conv_in.safetensors")
        (folder / "conv_out.safetensors").touch()
        bank = Bank.open(folder)
        with pytest.raises(BankError, match=r"conv_in.safetensors: is damaged"):
            bank.switched(unet).take(mixed(bank))

    @pytest.mark.parametrize(
        ("field", "value"),
        [("version", 3), ("layers", {}), ("inputs", 3), ("plan", {"version": 99, "layers": {}})],
    )
    def test_the_index_is_wrong(self, folder: Path, field: str, value: object):
        index = json.loads((folder / "bank.json").read_text())
        (folder / "bank.json").write_text(json.dumps(index | {field: value}))
        with pytest.raises(MezzotintError, match=r"bank.json: field"):
            Bank.open(folder)
