"""Distance of MixDQ's plans to real pictures: those that the models were trained on.

`benchmarks/mixdq.py` compares with the original's images; published tables compare with real ones,
as here: FD-Lite0 of the original, and of the plan, to the corpus, for the same captions and seeds.

    PYTHONPATH=. python benchmarks/mixdq_corpus.py --corpus FOLDER
                                                   [--models emoji-turbo] [--images 2000]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from mixdq import MODELS, RESULTS, parts, quantize, weights_of

import mezzotint as mz
from mezzotint._files import write_json
from mezzotint.evaluation import fd_lite0
from tools.emoji.config import PRESETS
from tools.emoji.data import Corpus, load_corpus

SEED = 2000
PLANS = (
    ("W4A8", "mixed, decoupled, sweep"),
    ("W4A8", "mixed, decoupled, joint"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="see tools/emoji/corpus.py")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["emoji-turbo"])
    parser.add_argument("-n", "--images", type=int, default=2000)
    parser.add_argument("--cache", type=Path, default=RESULTS / "measurements", help="journals")
    arguments = parser.parse_args()
    corpus = load_corpus(arguments.corpus, PRESETS[arguments.preset])
    found = [
        one for model in arguments.models
        for one in distances(model, corpus, arguments.images, arguments.cache)
    ]  # fmt: skip
    write_json(RESULTS / "mixdq_corpus.json", found)
    (RESULTS / "mixdq_corpus.md").write_text(markdown(found), "utf-8")
    print(markdown(found))


def distances(model: str, corpus: Corpus, images: int, cache: Path) -> list[dict[str, Any]]:
    pipe = mz.load(model)
    chosen = np.random.default_rng(0).permutation(corpus.rows(train=True))[:images]
    sampling = mz.Sampling(tuple(corpus.captions[row] for row in chosen), seed=SEED, batch=64)
    real = corpus.images[chosen]
    found = [{"model": model, "bits": "", "plan": "original", "images": len(chosen),
              "fd_lite0": fd_lite0(real, mz.generate(pipe, sampling)).value}]  # fmt: skip
    for row in parts():
        if (row.setting, row.plan) in PLANS:
            quantized = quantize(pipe, row, cache / weights_of(pipe)).pipeline
            distance = fd_lite0(real, mz.generate(quantized, sampling)).value
            found.append({"model": model, "bits": row.setting, "plan": row.plan,
                          "images": len(chosen), "fd_lite0": distance})  # fmt: skip
            print(found[-1], flush=True)
    return found


def markdown(found: list[dict[str, Any]]) -> str:
    original = {one["model"]: one["fd_lite0"] for one in found if one["plan"] == "original"}
    lines = [
        "| model | bits | plan | FD-Lite0 to real pictures | of the original's |",
        "|---" * 5 + "|",
    ]
    for one in found:
        share = one["fd_lite0"] / original[one["model"]]
        cells = one["model"], one["bits"], one["plan"], f"{one['fd_lite0']:.2f}", f"{share:.4f}"
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"{found[0]['images']} training captions, seeds {SEED} and following."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
