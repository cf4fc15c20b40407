from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from mezzotint.errors import CheckpointError
from mezzotint.evaluation import module_bytes, peak_rss_bytes, stored_bytes


class Tied(nn.Module):
    """Two layers of one weight, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("codes", torch.zeros(5, dtype=torch.uint8))


def test_module_bytes_count_parameters_and_buffers_once():
    assert module_bytes(Tied()) == (9 + 3) * 4 + 5


def test_stored_bytes_are_those_of_the_tensors(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    tensors = {
        "weight": torch.zeros(7, 3, dtype=torch.float16),
        "codes": torch.zeros(11, dtype=torch.uint8),
        "empty": torch.zeros(0),
    }
    save_file(tensors, path, metadata={"note": "headers do not count" * 10})
    assert stored_bytes(path) == 7 * 3 * 2 + 11


def test_a_folder_holds_the_sum_of_its_files(tmp_path: Path):
    (tmp_path / "unet").mkdir()
    for name in ("unet/a.safetensors", "unet/b.safetensors", "c.safetensors"):
        save_file({"x": torch.zeros(10)}, tmp_path / name)
    (tmp_path / "config.json").write_text("{}", "utf-8")
    assert stored_bytes(tmp_path / "unet") == 80
    assert stored_bytes(tmp_path) == 120


def test_a_saved_module_has_as_many_bytes_as_in_memory(tmp_path: Path):
    module = Tied()
    save_model(module, str(tmp_path / "model.safetensors"))
    assert stored_bytes(tmp_path) == module_bytes(module)


@pytest.mark.parametrize("keep", [4, 50, -1], ids=["length", "header", "tensors"])
def test_a_truncated_file_is_named(tmp_path: Path, keep: int):
    path = tmp_path / "model.safetensors"
    save_file({"x": torch.zeros(10)}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is missing, truncated"):
        stored_bytes(path)


@pytest.mark.parametrize("name", ["absent.safetensors", "."], ids=["file", "folder"])
def test_nothing_stored_is_an_error(tmp_path: Path, name: str):
    with pytest.raises(CheckpointError, match=r"is missing|holds no safetensors"):
        stored_bytes(tmp_path / name)


def test_the_peak_never_falls():
    before = peak_rss_bytes()
    block = torch.ones(8 << 20)
    held = peak_rss_bytes()
    assert held >= before
    assert held > block.nbytes
    del block
    assert peak_rss_bytes() >= held
