"""Announced and real time of `quantize` for a single file.

The file has the shape of Stable Diffusion 1.5 (859.5M parameters of U-Net, the VAE, CLIP-L) and
random weights in float16, in its authors' layout. `mezzotint quantize` runs on it as a user would
run it, into a pipe; the lines of its standard error tell when it said how long all would take, and
how long each stage took. Prints Markdown tables and writes them with all lines to
benchmarks/results/.

    PYTHONPATH=. python benchmarks/announced.py [--cache .cache/announced] [--options ...]

All behind `--options` goes to `mezzotint quantize`, in the place of those of `OPTIONS`. The file,
2.1 GB, is made once and stays in the cache.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
from contestants.announced_stages import markdown, stages, taken_by_stage, whole
from contestants.hardware import describe
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from original_layout import write_original
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from mezzotint._files import write_json

RESULTS = Path(__file__).parent / "results"
TOKENS = 77

OPTIONS = (
    *("--steps", "4", "--guidance", "1", "--weight-bits", "4", "--calls", "1"),
    *("--formats", "int3/channel,int8/channel", "--rounding", "nearest"),
    *("--sensitivity", "probes", "--probes", "8", "--regret", "9", "--no-exchanges"),
)
"""Options as for a model of few steps, with less of everything than by default: 20 minutes."""

PROMPTS = ("a red owl", "two bowls of soup", "the harbour at night", "an old map of a city")
"""Images to record calls of: eight and more take as many times longer."""


def main() -> None:
    """Make the file where it is not there yet, quantize it, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=Path(".cache/announced"))
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=list(OPTIONS))
    chosen = parser.parse_args()
    file, config = chosen.cache / "sd15.safetensors", chosen.cache / "configuration"
    if not file.is_file():
        make(file, config)
    output = chosen.cache / "quantized"
    prompts = chosen.cache / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS) + "\n", "utf-8")
    command = [sys.executable, "-m", "mezzotint", "quantize", str(file), "--output", str(output)]
    command += ["--config", str(config), "--prompts", str(prompts), "--force"]
    lines, total = timed([*command, *chosen.options])
    found, overall, by_stage = stages(lines), whole(lines, total), taken_by_stage(lines)
    options = " ".join(chosen.options)
    table = f"`quantize {options}`\n\n{markdown(found, overall, by_stage, total)}"
    print(table)
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    value = {
        "machine": describe("cpu", threads),
        "options": chosen.options,
        "seconds": total,
        "whole": asdict(overall) | {"ratio": overall.ratio},
        "seconds_by_stage": by_stage,
        "stages": [asdict(stage) for stage in found],
        "lines": lines,
    }
    write_json(RESULTS / "announced.json", value)
    (RESULTS / "announced.md").write_text(table, "utf-8")


def make(file: Path, config: Path) -> None:
    """Write the file, and the folder of its configuration."""
    config.mkdir(parents=True, exist_ok=True)
    pipe = stable_diffusion()
    write_original(pipe, file, torch.float16)
    pipe.save_pretrained(config)
    for path in config.glob("*/*.safetensors"):
        path.unlink()


def stable_diffusion() -> StableDiffusionPipeline:
    """The shape of Stable Diffusion 1.5 with random weights; every letter is a token."""
    torch.manual_seed(0)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{x}</w>" for x in letters)]
    words = {token: index for index, token in enumerate(tokens)}
    text = CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    vae = AutoencoderKL(
        sample_size=512,
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer(vocab=words, merges=[], model_max_length=TOKENS),
        unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            clip_sample=False,
            set_alpha_to_one=False,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def timed(command: list[str]) -> tuple[list[tuple[float, str]], float]:
    """Lines of standard error, each with the second that it came in, and all seconds."""
    started, lines = time.monotonic(), []
    with subprocess.Popen(  # noqa: S603  (our own command)
        command, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append((time.monotonic() - started, line.rstrip()))
            print(f"{lines[-1][0]:7.0f}  {lines[-1][1]}", file=sys.stderr, flush=True)
    if process.returncode:
        raise SystemExit(process.returncode)
    return lines, time.monotonic() - started


if __name__ == "__main__":
    main()
