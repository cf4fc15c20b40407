"""`python -m tools.emoji STAGE --corpus DIR`: train one part, or everything in order."""

from __future__ import annotations

import argparse
import os
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from tools.emoji import stages
from tools.emoji.config import PRESETS, Preset, Schedule
from tools.emoji.data import load_corpus
from tools.emoji.export import export
from tools.emoji.start import SHIPPED, start
from tools.emoji.training import process_count

ZOO = Path(__file__).parents[2] / "src" / "mezzotint" / "zoo"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.emoji", description=__doc__)
    parser.add_argument("stage", choices=[*stages.STAGES, "start", "export", "all"])
    parser.add_argument("--corpus", type=Path, required=True, help="folder of emoji64.npz")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="checkpoints go here")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu")
    parser.add_argument("--steps", type=int, help="override the stage's number of updates")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    for name in SHIPPED:
        help_text = f"start: weights of {name}, instead of the shipped"
        parser.add_argument(f"--{name}", type=Path, help=help_text)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    preset = PRESETS[arguments.preset]
    if arguments.steps and arguments.stage != "all":
        schedule = replace(getattr(preset, arguments.stage), steps=arguments.steps)
        preset = replace(preset, **{arguments.stage: schedule})
    if "WORLD_SIZE" in os.environ:  # started by torchrun
        # One process may be stopped for long.
        distributed.init_process_group("gloo", timeout=timedelta(days=7))
        preset = shared(preset)
    corpus = load_corpus(arguments.corpus, preset)
    context = stages.Context(corpus=corpus, preset=preset, runs=arguments.runs)
    for name in stages.STAGES if arguments.stage == "all" else [arguments.stage]:
        if name in stages.STAGES:
            print(f"== {name} ({preset.name}, {len(corpus.captions)} images)", flush=True)
            stages.STAGES[name](context)
    if arguments.stage == "start":
        given = {name: getattr(arguments, name) for name in SHIPPED}
        start(context, ZOO, {name: file for name, file in given.items() if file})
    if arguments.stage in ("export", "all"):
        export(context, ZOO)


def shared(preset: Preset) -> Preset:
    """The same batches, divided among the processes."""
    schedules = {
        field.name: replace(schedule, batch=schedule.batch // process_count())
        for field in fields(preset)
        if isinstance(schedule := getattr(preset, field.name), Schedule)
    }
    return replace(preset, **schedules)


if __name__ == "__main__":
    main()
