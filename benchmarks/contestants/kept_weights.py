"""Encoded weights that stay on disk, so that an interrupted run goes on where it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mezzotint._files import replacing
from mezzotint.measuring import model_digest
from mezzotint.plan import VERSION, Choice, Encoding
from mezzotint.runtime.encode import encoded_part
from mezzotint.runtime.packed import PartCalibration

from .clock import Clock


class KeptWeights:
    """A file for each layer and weight format of one model, rounded to nearest.

    There are neither structures nor calibration.
    """

    def __init__(self, place: Path, denoiser: nn.Module) -> None:
        self.folder = place / f"{model_digest(denoiser)}-{VERSION}"
        self.denoiser = denoiser

    def encode(self, names: Sequence[str], formats: Sequence[str]) -> Clock:
        """Encode what is not there, layer by layer; the time that all of it has taken."""
        total = Clock()
        for index, name in enumerate(names, 1):
            taken = Clock()
            for weight_format in formats:
                taken.add(self._seconds(self._file(name, Choice(weight_format))))
            print(f"encoded {index}/{len(names)}: {name}, {taken.wall:.1f} s", flush=True)
            total.add(taken)
        return total

    @torch.no_grad()
    def weight_of(self, name: str, choice: Choice) -> tuple[Tensor, None]:
        """The dequantized weight; a mapping of its file is gone again when this returns."""
        weight_format = choice.weight_format
        assert weight_format is not None, "of a quantized layer"
        shape = tuple(self._weight(name).shape)
        return weight_format.decode(load_file(self._file(name, choice)), shape), None

    def _weight(self, name: str) -> Tensor:
        return self.denoiser.get_submodule(name).get_parameter("weight").detach()

    def _file(self, name: str, choice: Choice) -> Path:
        """File of one layer and weight format, made where it is not there."""
        file = self.folder / f"{name}-{choice.weight.replace('/', '-')}.safetensors"
        if not file.exists():
            weight_format, clock = choice.weight_format, Clock()
            assert weight_format is not None, "of a quantized layer"
            with clock.running():
                stored = encoded_part(
                    weight_format, self._weight(name), Encoding(), PartCalibration()
                )
            seconds = {"processor": repr(clock.processor), "wall": repr(clock.wall)}
            with replacing(file) as temporary:
                save_file({key: each.contiguous() for key, each in stored.items()}, temporary,
                          seconds)  # fmt: skip
        return file

    @staticmethod
    def _seconds(file: Path) -> Clock:
        with safe_open(file, "pt") as opened:
            found = opened.metadata()
        return Clock(float(found["processor"]), float(found["wall"]))
