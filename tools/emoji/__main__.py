"""`python -m tools.emoji STAGE --corpus DIR`: train one part, or everything in order."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from tools.emoji import stages
from tools.emoji.config import PRESETS
from tools.emoji.data import load_corpus
from tools.emoji.export import export

ZOO = Path(__file__).parents[2] / "src" / "mezzotint" / "zoo"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.emoji", description=__doc__)
    parser.add_argument("stage", choices=[*stages.STAGES, "export", "all"])
    parser.add_argument("--corpus", type=Path, required=True, help="folder of emoji64.npz")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="checkpoints go here")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu")
    parser.add_argument("--steps", type=int, help="override the stage's number of updates")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    preset = PRESETS[arguments.preset]
    if arguments.steps and arguments.stage != "all":
        schedule = replace(getattr(preset, arguments.stage), steps=arguments.steps)
        preset = replace(preset, **{arguments.stage: schedule})
    corpus = load_corpus(arguments.corpus, preset)
    context = stages.Context(corpus=corpus, preset=preset, runs=arguments.runs)
    for name in stages.STAGES if arguments.stage == "all" else [arguments.stage]:
        if name in stages.STAGES:
            print(f"== {name} ({preset.name}, {len(corpus.captions)} images)", flush=True)
            stages.STAGES[name](context)
    if arguments.stage in ("export", "all"):
        export(context, ZOO)


if __name__ == "__main__":
    main()
