"""Figures, sample grids and model cards of the embedded models.

    python -m tools.emoji.cards --corpus DIR [--models emoji-turbo …] [--images 2000]

Writes `README.md` into each model's folder, a grid per model into docs/images/ and all figures to
benchmarks/results/models.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import DiffusionPipeline

import mezzotint as mz
from mezzotint._files import write_json
from mezzotint.evaluation import (
    Contrastive,
    contrastive_for,
    fd_lite0,
    r_precision,
)
from mezzotint.models import Sampling, find_denoiser
from mezzotint.report import picture_grid, save_picture
from tools.emoji.config import PRESETS
from tools.emoji.data import Corpus, load_corpus
from tools.emoji.text import embed, outlier_ratio, tokenize

ROOT = Path(__file__).parents[2]
ZOO = ROOT / "src" / "mezzotint" / "zoo"
RESULTS = ROOT / "benchmarks" / "results" / "models.json"
BATCH = 50
GRID_COLUMNS, GRID_ROWS = 16, 4
SEED = 10_000

TITLES = {
    "emoji-teacher": "text to 64×64 emoji, 20 steps with guidance (UNet)",
    "emoji-turbo": "text to 64×64 emoji, 1–4 steps (UNet, distilled from emoji-teacher)",
    "emoji-dit": "text to 64×64 emoji, 1–4 steps (PixArt-like transformer)",
}
FEWER_STEPS = {"emoji-turbo": (1, 2), "emoji-dit": (1, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu")
    parser.add_argument("--models", nargs="+", default=list(TITLES), choices=list(TITLES))
    parser.add_argument("-n", "--images", type=int, default=2000)
    arguments = parser.parse_args()
    corpus = load_corpus(arguments.corpus, PRESETS[arguments.preset])
    figures = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    for name in arguments.models:
        figures[name] = measure(name, corpus, arguments.images, arguments.preset)
        write_json(RESULTS, figures)
        (ZOO / name / "README.md").write_text(card(name, figures[name]), "utf-8")
        print(card(name, figures[name]), flush=True)


def measure(name: str, corpus: Corpus, images: int, preset: str) -> dict[str, Any]:
    """R-precision of generated and real images, FD-Lite0 between them, and the outlier ratio."""
    pipe = mz.load(name)
    contrastive = contrastive_for(pipe)
    assert contrastive is not None
    generator = np.random.default_rng(0)
    result: dict[str, Any] = {"preset": preset, "styles": list(PRESETS[preset].styles)}
    for split, train in (("train", True), ("test", False)):
        rows = generator.permutation(corpus.rows(train))[:images]
        captions = [corpus.captions[row] for row in rows]
        generated = mz.generate(pipe, Sampling(tuple(captions), seed=SEED, batch=BATCH))
        result[split] = {
            "images": len(rows),
            "generated": alignment(contrastive, generated, captions),
            "real": alignment(contrastive, corpus.images[rows], captions),
        }
        if len(rows) > 1:
            distance = fd_lite0(corpus.images[rows], generated)
            result[split]["fd_lite0"] = {"value": distance.value, "note": distance.note}
        if train:
            save_grid(name, generated)
    result["fewer_steps"] = fewer_steps(pipe, corpus, images // 4, FEWER_STEPS.get(name, ()))
    ids, _ = tokenize(pipe.tokenizer, corpus.captions[:256])
    result["token_0_ratio"] = outlier_ratio(embed(pipe.text_encoder, ids, "cpu"))
    denoiser = find_denoiser(pipe)[1]
    result["denoiser_parameters"] = sum(p.numel() for p in denoiser.parameters())
    return result


def fewer_steps(
    pipe: DiffusionPipeline, corpus: Corpus, images: int, counts: tuple[int, ...]
) -> dict[str, Any]:
    """R-precision on training captions with fewer steps than the default."""
    contrastive = contrastive_for(pipe)
    assert contrastive is not None
    rows = np.random.default_rng(0).permutation(corpus.rows(train=True))[:images]
    captions = [corpus.captions[row] for row in rows]
    found = {}
    for steps in counts:
        sampling = Sampling(tuple(captions), seed=SEED, batch=BATCH, steps=steps)
        own = alignment(contrastive, mz.generate(pipe, sampling), captions)
        found[str(steps)] = {"images": len(rows), "generated": own}
    return found


def alignment(model: Contrastive, images: np.ndarray, captions: list[str]) -> dict[str, Any]:
    found = r_precision(model.embed_images(images), model.embed_texts(captions), captions=captions)
    return {"value": found.value, "low": found.low, "high": found.high}


def save_grid(name: str, images: np.ndarray) -> None:
    count = GRID_COLUMNS * GRID_ROWS
    rows = images[:count].reshape(-1, min(GRID_COLUMNS, len(images)), *images.shape[1:])
    picture = picture_grid({str(index + 1): row for index, row in enumerate(rows)})
    save_picture(picture, ROOT / "docs" / "images" / f"{name}.png")


def card(name: str, figures: dict[str, Any]) -> str:
    """The model card, every figure measured."""
    lines = [
        f"# {name}: {TITLES[name]}",
        "",
        f"A small, ordinary diffusers pipeline ({figures['denoiser_parameters'] / 1e6:.1f}M "
        "parameters in the denoiser) made to measure quantization on, not to draw with. Trained "
        f"with `tools/emoji` (preset `{figures['preset']}`) on the styles "
        f"{', '.join(figures['styles'])}; see NOTICE for the sources of the pictures.",
        "",
        'Prompts look like "owl, noto style": a CLDR emoji name and a style.',
        "",
        "| captions | images | R-precision, generated | R-precision, real images | ratio "
        "| FD-Lite0 to the real images |",
        "|---|---|---|---|---|---|",
    ]
    for split in ("train", "test"):
        one = figures[split]
        own, real = one["generated"], one["real"]
        distance = one["fd_lite0"]
        lines.append(
            f"| {split} | {one['images']} "
            f"| {own['value']:.3f} [{own['low']:.3f}, {own['high']:.3f}] "
            f"| {real['value']:.3f} | {own['value'] / real['value']:.2f} "
            f"| {distance['value']:.2f}{' (biased: few images)' if distance['note'] else ''} |"
        )
    if figures["fewer_steps"]:
        shown = [
            f"{steps} step{'s' if steps != '1' else ''} {one['generated']['value']:.3f}"
            for steps, one in figures["fewer_steps"].items()
        ]
        count = next(iter(figures["fewer_steps"].values()))["images"]
        lines += [
            "",
            f"The table is for the default of 4 steps, which the model was trained for. With fewer "
            f"it still draws, but blurred: R-precision on {count} training captions: "
            f"{', '.join(shown)}.",
        ]
    lines += [
        "",
        "R-precision: the image's own caption ranks first among 100 under the contrastive model in "
        "`emoji-clip`, which was trained on the same training captions; 95% bootstrap intervals. "
        "Test pairs (picture and style) were never trained on; nearly all their concepts were, in "
        "another style. FD-Lite0: Fréchet distance of EfficientNet-Lite0 features at 128×128.",
        "",
        f"Token 0 of the text encoder is built to be an outlier as in CLIP: its largest entry is "
        f"{figures['token_0_ratio']:.0f} times that of other tokens on average. Four dimensions of "
        "the residual stream belong to it alone; the denoisers were trained with it in place.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
