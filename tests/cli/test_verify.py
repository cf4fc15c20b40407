"""`mezzotint verify`."""

import json
import shutil
from pathlib import Path

import pytest

from mezzotint._tensor_digests import stored_places
from mezzotint.bank import Bank
from mezzotint.plan import Choice
from tests.models.tiny import smallest_unet


def test_a_whole_checkpoint(run, quantized: Path):
    result = run("verify", quantized, "--json")
    assert result.exit_code == 0
    files = json.loads(result.stdout)
    assert {file["name"].partition("/")[0] for file in files} == {"unet", "vae", "text_encoder"}
    assert all(file["verified"] for file in files)
    assert "as it was saved" in run("verify", quantized).stdout


def test_a_damaged_one(fails, quantized: Path, tmp_path: Path):
    folder = shutil.copytree(quantized, tmp_path / "copy")
    (file,) = (folder / "unet").glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[stored_places(file)["conv_in.weight_codes"].start] ^= 1
    file.write_bytes(content)
    assert "are not those that were saved: conv_in.weight_codes" in fails("verify", folder)


@pytest.mark.parametrize("component", ["unet", "vae"])
def test_one_whose_component_is_a_link(run, fails, quantized: Path, tmp_path: Path, component: str):
    folder = shutil.copytree(quantized, tmp_path / "copy")
    (folder / "real").mkdir()
    (folder / component).rename(folder / "real" / component)
    (folder / component).symlink_to(Path("real", component))
    assert all(file["verified"] for file in json.loads(run("verify", folder, "--json").stdout))
    (file,) = (folder / component).glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert "are not those that were saved" in fails("verify", folder)


def test_one_without_digests(fails, model: Path):
    assert fails("verify", model).startswith(f"{model}: has no digests")


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_no_checkpoint(fails, tmp_path: Path, name: str):
    (tmp_path / "file").write_text("mine")
    assert "is no folder of a pipeline" in fails("verify", tmp_path / name)


def test_a_bank(run, fails, tmp_path: Path):
    unet = smallest_unet().eval()
    choices = {name: (Choice("uint3/channel"),) for name in ("conv_in", "conv_out")}
    Bank.build(tmp_path / "bank", unet, choices)
    files = json.loads(run("verify", tmp_path / "bank", "--json").stdout)
    assert [file["name"] for file in files] == ["conv_in.safetensors", "conv_out.safetensors"]
    assert all(file["verified"] for file in files)
    path = tmp_path / "bank" / "conv_in.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "conv_in.safetensors: is damaged (conv_in" in fails("verify", tmp_path / "bank")
