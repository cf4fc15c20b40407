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
    model.save_pretrained(context.folder("vae") / "model")


def run_clip(context: Context) -> None:
    model = clip.train(
        context.corpus,
        tokenizer(context),
        context.diffusion.text,
        context.preset,
        context.folder("clip"),
    )
    model.save_pretrained(context.folder("clip") / "model")


def latents(context: Context) -> tuple[Latents, float]:
    """The corpus through the finished autoencoder and text encoder, and the scaling factor."""
    path = context.folder("latents") / "latents.safetensors"
    if not path.exists():
        device = context.preset.device
        encoder = AutoencoderKL.from_pretrained(context.folder("vae") / "model")
        means = vae.encode_all(encoder, context.corpus, device)
        ids, mask = text.tokenize(tokenizer(context), [*context.corpus.captions, ""])
        contrastive = CLIPModel.from_pretrained(context.folder("clip") / "model")
        embedded = text.embed(contrastive.text_model, ids, device)
        print(f"token 0 outlier ratio: {text.outlier_ratio(embedded):.1f}")
        path.parent.mkdir(parents=True, exist_ok=True)
        _save({"images": means, "text": embedded, "mask": mask}, path)
    stored = load_file(path)
    rows = torch.from_numpy(context.corpus.rows(train=True))
    factor = 1.0 / stored["images"][rows].std().item()
    data = Latents(stored["images"] * factor, stored["text"], stored["mask"], rows)
    return data, factor


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def _wrapped(context: Context, bare: nn.Module) -> TextScaled:
    wrapped = TextScaled(bare, context.diffusion).to(context.preset.device)
    if isinstance(bare, denoiser.UNet2DConditionModel):
        wrapped = wrapped.to(memory_format=torch.channels_last)
    return wrapped


BUILDERS = {"teacher": denoiser.build_unet, "dit": denoiser.build_dit}
STUDENTS = {"turbo": "teacher", "dit_turbo": "dit"}


def _train(stage: str) -> Callable[[Context], None]:
    def run(context: Context) -> None:
        schedule = getattr(context.preset, stage)
        torch.manual_seed(schedule.seed)
        data, _ = latents(context)
        wrapped = _wrapped(context, BUILDERS[stage](context.diffusion))
        folder = context.folder(stage)
        average = denoiser.train(wrapped, data, context.diffusion, schedule, folder)
        _save(average.denoiser.state_dict(), folder / "average.safetensors")

    return run


def trained(context: Context, stage: str) -> TextScaled:
    """The averaged denoiser of a finished stage, text still scaled."""
    bare = BUILDERS[STUDENTS.get(stage, stage)](context.diffusion)
    bare.load_state_dict(load_file(context.folder(stage) / "average.safetensors"))
    return _wrapped(context, bare)


def _distill(stage: str) -> Callable[[Context], None]:
    def run(context: Context) -> None:
        data, _ = latents(context)
        folder, schedule = context.folder(stage), getattr(context.preset, stage)
        teacher = trained(context, STUDENTS[stage])
        average = distill.distill(teacher, data, context.diffusion, schedule, folder)
        _save(average.denoiser.state_dict(), folder / "average.safetensors")

    return run


STAGES: dict[str, Callable[[Context], None]] = {
    "vae": run_vae,
    "clip": run_clip,
    "teacher": _train("teacher"),
    "dit": _train("dit"),
    "turbo": _distill("turbo"),
    "dit_turbo": _distill("dit_turbo"),
}
