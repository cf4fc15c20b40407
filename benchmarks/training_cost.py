"""Peak memory and work of one update of MPQ-DM's training, line by line, for published shapes.

Nothing heavy is run: the update is followed on the meta device.

    PYTHONPATH=. python benchmarks/training_cost.py [--models sdxl] [--prompts 4] [--rank 32]
        [--window 2] [--dtype bfloat16]
"""

from __future__ import annotations

import argparse

import diffusers
import torch
from contestants.denoisers import DENOISERS
from contestants.training_cost_table import markdown
from contestants.update_cost import Update, update_cost
from torch import nn

from mezzotint.models import example_call

SIDES = {"sd15": 64, "sdxl": 128, "pixart": 128}
"""Height and width of the latents that each model draws."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--prompts", type=int, default=4, help="of an update")
    parser.add_argument("--rank", type=int, default=Update.rank)
    parser.add_argument("--window", type=int, default=Update.window)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    chosen = parser.parse_args()
    update = Update(rank=chosen.rank, window=chosen.window)
    dtype = getattr(torch, chosen.dtype)
    costs = {}
    for name in chosen.models:
        denoiser = shaped(name).to(dtype)
        title = f"{name}, {SIDES[name]}×{SIDES[name]}"
        costs[title] = update_cost(denoiser, example_call(denoiser, 2 * chosen.prompts), update)
    print(f"{chosen.prompts} prompts with guidance, {update.window} denoising steps per update,")
    print(f"LoRA of rank {update.rank}, all that is not trained in {chosen.dtype}\n")
    print(markdown(costs))


def shaped(name: str) -> nn.Module:
    """A published denoiser on the meta device, of its own latents."""
    known = DENOISERS[name]
    with torch.device("meta"):
        kind = getattr(diffusers, known.class_name)
        made: nn.Module = kind(**known.config | {"sample_size": SIDES[name]})
    return made.eval()


if __name__ == "__main__":
    main()
