"""A model whose own prompts are those that no row is evaluated on."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from diffusers import DiffusionPipeline

import mezzotint as mz
from mezzotint.recipes.default_prompts import MOST_PROMPTS, PROMPTS_FILE, default_prompts


def without_prompts(
    pipe: DiffusionPipeline, evaluated: Collection[str], parent: Path
) -> DiffusionPipeline:
    """The same pipeline from a copy of its folder, to be calibrated and trained on other prompts.

    Args:
        pipe: loaded from a folder.
        evaluated: prompts that the copy's list leaves out.
        parent: folder of the copy, which has the name of the original.

    Raises:
        SystemExit: there are too few other prompts.
    """
    others = [prompt for prompt in default_prompts(pipe) if prompt not in set(evaluated)]
    if len(others) < MOST_PROMPTS:
        raise SystemExit(f"{len(others)} prompts are left to train on; evaluate on fewer images")
    folder = parent / Path(pipe.name_or_path).name
    shutil.copytree(pipe.name_or_path, folder, dirs_exist_ok=True)
    (folder / PROMPTS_FILE).write_text("\n".join(others) + "\n", "utf-8")
    return mz.load(folder)
