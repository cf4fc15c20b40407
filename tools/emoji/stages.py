"""The order of the training, and where each stage leaves its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPModel, CLIPTokenizer

from tools.emoji import clip, denoiser, distill, text, vae
from tools.emoji.config import Diffusion, Preset
from tools.emoji.data import Corpus
from tools.emoji.denoiser import Latents, TextScaled
from tools.emoji.training import first_alone, process_rank

START = "start.safetensors"
"""In a denoiser's folder: weights to begin with, text still scaled."""


@dataclass(frozen=True)
class Context:
    """Data, configuration and the folder of checkpoints, which every stage needs."""

    corpus: Corpus
    preset: Preset
    runs: Path
    diffusion: Diffusion = field(default_factory=Diffusion)

    def folder(self, stage: str) -> Path:
        return self.runs / self.preset.name / stage


def tokenizer(context: Context) -> CLIPTokenizer:
    """Trained once, then read back."""
    folder = context.folder("tokenizer")
    if (folder / "tokenizer_config.json").exists():
        return CLIPTokenizer.from_pretrained(folder)
    captions = [context.corpus.captions[row] for row in context.corpus.rows(train=True)]
    return text.train_tokenizer(captions, context.diffusion.text, folder)


def run_vae(context: Context) -> None:
    model = vae.train(context.corpus, context.preset, context.folder("vae"))
    if process_rank() == 0:
        model.save_pretrained(context.folder("vae") / "model")


def run_decoder(context: Context) -> None:
    """Another decoder for the latents there are: all that was trained on them stays valid."""
    start = AutoencoderKL.from_pretrained(context.folder("vae") / "model")
    folder = context.folder("decoder")
    model = vae.train_decoder(start, context.corpus, context.preset, folder)
    if process_rank() == 0:
        model.save_pretrained(folder / "model")


def finished_vae(context: Context) -> AutoencoderKL:
    """With the decoder that was trained on, if there is one."""
    folders = [context.folder(stage) / "model" for stage in ("decoder", "vae")]
    return AutoencoderKL.from_pretrained(next(f for f in folders if f.exists()))


def run_clip(context: Context) -> None:
    model = clip.train(
        context.corpus,
        tokenizer(context),
        context.diffusion.text,
        context.preset,
        context.folder("clip"),
    )
    if process_rank() == 0:
        model.save_pretrained(context.folder("clip") / "model")


def latents(context: Context) -> tuple[Latents, float]:
    """The corpus through the finished autoencoder and text encoder, and the scaling factor."""
    path = context.folder("latents") / "latents.safetensors"
    with first_alone():
        if not path.exists():
            _encode(context, path)
    stored = load_file(path)
    rows = torch.from_numpy(context.corpus.rows(train=True))
    factor = 1.0 / stored["images"][rows].std().item()
    data = Latents(stored["images"] * factor, stored["text"], stored["mask"], rows)
    return data, factor


def _encode(context: Context, path: Path) -> None:
    device = context.preset.device
    means = vae.encode_all(finished_vae(context), context.corpus, device)
    ids, mask = text.tokenize(tokenizer(context), [*context.corpus.captions, ""])
    contrastive = CLIPModel.from_pretrained(context.folder("clip") / "model")
    embedded = text.embed(contrastive.text_model, ids, device)
    print(f"token 0 outlier ratio: {text.outlier_ratio(embedded):.1f}")
    path.parent.mkdir(parents=True, exist_ok=True)
    save({"images": means, "text": embedded, "mask": mask}, path)


def save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def _save_first(tensors: dict[str, torch.Tensor], path: Path) -> None:
    if process_rank() == 0:
        save(tensors, path)


def wrapped(context: Context, bare: nn.Module) -> TextScaled:
    scaled = TextScaled(bare, context.diffusion).to(context.preset.device)
    if isinstance(bare, denoiser.UNet2DConditionModel):
        scaled = scaled.to(memory_format=torch.channels_last)
    return scaled


BUILDERS = {"teacher": denoiser.build_unet, "dit": denoiser.build_dit}
STUDENTS = {"turbo": "teacher", "dit_turbo": "dit"}


def _train(stage: str) -> Callable[[Context], None]:
    def run(context: Context) -> None:
        schedule = getattr(context.preset, stage)
        torch.manual_seed(schedule.seed)
        data, _ = latents(context)
        bare, folder = BUILDERS[stage](context.diffusion), context.folder(stage)
        if (folder / START).exists():
            bare.load_state_dict(load_file(folder / START))
        scaled = wrapped(context, bare)
        average = denoiser.train(scaled, data, context.diffusion, schedule, folder)
        _save_first(average.denoiser.state_dict(), folder / "average.safetensors")

    return run


def trained(context: Context, stage: str) -> TextScaled:
    """The averaged denoiser of a finished stage, text still scaled."""
    bare = BUILDERS[STUDENTS.get(stage, stage)](context.diffusion)
    bare.load_state_dict(load_file(context.folder(stage) / "average.safetensors"))
    return wrapped(context, bare)


def _distill(stage: str) -> Callable[[Context], None]:
    def run(context: Context) -> None:
        data, _ = latents(context)
        folder, schedule = context.folder(stage), getattr(context.preset, stage)
        teacher = trained(context, STUDENTS[stage])
        average = distill.distill(teacher, data, context.diffusion, schedule, folder)
        _save_first(average.denoiser.state_dict(), folder / "average.safetensors")

    return run


STAGES: dict[str, Callable[[Context], None]] = {
    "vae": run_vae,
    "clip": run_clip,
    "decoder": run_decoder,
    "teacher": _train("teacher"),
    "dit": _train("dit"),
    "turbo": _distill("turbo"),
    "dit_turbo": _distill("dit_turbo"),
}
