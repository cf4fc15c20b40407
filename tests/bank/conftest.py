"""The smallest U-Net, calls of it, and banks of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from mezzotint.bank import Bank
from mezzotint.calibration import calibrated
from mezzotint.formats import QUA2SEDIMO
from mezzotint.models import Call
from mezzotint.plan import Choice, Encoding, Plan
from mezzotint.runtime import Calibration, SplitInput
from tests.measuring.conftest import recorded_calls
from tests.models.tiny import smallest_unet

FORMATS = ("kmeans3/tensor", "uint3/channel", "kmeans4/channel")
NEAREST = Encoding(QUA2SEDIMO)
FEEDBACK = Encoding(QUA2SEDIMO, "feedback")
SPLIT = "up_blocks.0.resnets.0.conv1"


def layers_of(denoiser: nn.Module) -> list[str]:
    return [n for n, each in denoiser.named_modules() if type(each) in (nn.Linear, nn.Conv2d)]


def candidates_of(denoiser: nn.Module) -> Mapping[str, tuple[Choice, ...]]:
    """Every layer in every format; the input of one is split."""
    structures = {SPLIT: (SplitInput(8),)}
    return {
        name: tuple(Choice(each, structures=structures.get(name, ())) for each in FORMATS)
        for name in layers_of(denoiser)
    }


def calibration_of(denoiser: nn.Module, encoding: Encoding) -> Calibration:
    """Moments for every layer, where the encoding needs them."""
    choices = {name: each[0] for name, each in candidates_of(denoiser).items()}
    return calibrated(denoiser, Plan(choices, encoding=encoding), recorded_calls(denoiser))


def built(folder: Path, denoiser: nn.Module, encoding: Encoding = NEAREST) -> Bank:
    known = calibration_of(denoiser, encoding)
    return Bank.build(folder, denoiser, candidates_of(denoiser), encoding, known)


def mixed(bank: Bank, seed: int = 0) -> dict[str, str]:
    """A format for every weight, drawn."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(FORMATS), (len(bank.keys),), generator=generator)
    return {key: FORMATS[index] for key, index in zip(bank.keys, drawn.tolist(), strict=True)}


@pytest.fixture
def unet() -> nn.Module:
    return smallest_unet().eval()


@pytest.fixture
def calls(unet: nn.Module) -> tuple[Call, ...]:
    return recorded_calls(unet)


@pytest.fixture(scope="session")
def bank_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished bank, rounded to the nearest; read only."""
    folder = tmp_path_factory.mktemp("banks") / "nearest"
    built(folder, smallest_unet().eval())
    return folder


@pytest.fixture
def bank(bank_folder: Path) -> Bank:
    return Bank.open(bank_folder)
