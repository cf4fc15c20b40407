"""The emoji–caption corpus: images, captions, split."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tools.emoji.config import Preset

TONES = ("light", "medium light", "medium", "medium dark", "dark")


@dataclass(frozen=True)
class Corpus:
    """`images` uint8 [n, 64, 64, 3] on white and, row by row, `captions` and `train` flags."""

    images: np.ndarray
    captions: list[str]
    train: np.ndarray

    def pixels(self, rows: Tensor | np.ndarray) -> Tensor:
        """Rows as float32 [n, 3, 64, 64] in [-1, 1]."""
        chosen = torch.from_numpy(self.images[np.asarray(rows)])
        return chosen.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)

    def rows(self, train: bool) -> np.ndarray:
        return np.flatnonzero(self.train == train)


def load_corpus(directory: Path, preset: Preset) -> Corpus:
    """Read `emoji64.npz` and `captions.jsonl`, keeping the preset's styles and plain skin tones."""
    with np.load(directory / "emoji64.npz") as archive:
        images = archive["images"]
    lines = (directory / "captions.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    styles_of: dict[str, set[str]] = {}
    for record in records:
        styles_of.setdefault(record["name"], set()).add(record["style"])
    keep = [
        index
        for index, record in enumerate(records)
        if record["style"] in preset.styles
        and "skin tone" not in record["name"]
        and not record["name"].endswith(TONES)
        and (not preset.common_concepts_only or len(styles_of[record["name"]]) == 5)
    ]
    return Corpus(
        images=images[keep],
        captions=[f"{records[i]['name']}, {records[i]['style']} style" for i in keep],
        train=np.array([records[i]["split"] == "train" for i in keep]),
    )
