"""A small autoencoder: 64×64×3 pixels to 16×16×4 latents."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, l1_loss

from tools.emoji.config import Preset
from tools.emoji.data import Corpus
from tools.emoji.training import Trainer

KL_WEIGHT = 1e-5
EDGE_WEIGHT = 1.0


def build(preset: Preset) -> AutoencoderKL:
    """An AutoencoderKL with two down-samplings."""
    levels = len(preset.vae_channels)
    return AutoencoderKL(
        sample_size=64,
        latent_channels=4,
        block_out_channels=preset.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        norm_num_groups=8,
    )


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical differences: outlines are what makes an emoji legible."""
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 on pixels, on edges and on the half-size picture."""
    loss = l1_loss(output, target) + l1_loss(avg_pool2d(output, 2), avg_pool2d(target, 2))
    for got, wanted in zip(edges(output), edges(target), strict=True):
        loss = loss + EDGE_WEIGHT * l1_loss(got, wanted)
    return loss


def train(corpus: Corpus, preset: Preset, directory: Path) -> AutoencoderKL:
    """Train on the training split, mirrored at random; returns the averaged model."""
    torch.manual_seed(preset.vae.seed)
    model = build(preset).to(preset.device, memory_format=torch.channels_last)
    rows = torch.from_numpy(corpus.rows(train=True))

    def loss(generator: torch.Generator) -> Tensor:
        chosen = rows[torch.randint(len(rows), (preset.vae.batch,), generator=generator)]
        images = corpus.pixels(chosen)
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images[mirrored] = images[mirrored].flip(-1)
        images = images.to(preset.device, memory_format=torch.channels_last)
        posterior = model.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(images)
        latents = posterior.mean + posterior.std * noise
        decoded = model.decode(latents.to(images)).sample.float()
        return reconstruction_loss(decoded, images) + KL_WEIGHT * posterior.kl().mean()

    average: nn.Module = Trainer(model, preset.vae, directory).fit(loss)
    assert isinstance(average, AutoencoderKL)
    return average


def train_decoder(
    model: AutoencoderKL, corpus: Corpus, preset: Preset, directory: Path
) -> AutoencoderKL:
    """Train the decoder on, on latents that stay as they are; returns the averaged model."""
    model = model.to(preset.device, memory_format=torch.channels_last).requires_grad_(False)
    rows = torch.from_numpy(corpus.rows(train=True))
    # Of the pictures, then of their mirror images.
    encoded = torch.cat([_moments(model, corpus, rows, mirrored=m) for m in (False, True)])
    for part in (model.decoder, model.post_quant_conv):
        part.requires_grad_(True)

    def loss(generator: torch.Generator) -> Tensor:
        drawn = torch.randint(len(encoded), (preset.decoder.batch,), generator=generator)
        images = corpus.pixels(rows[drawn % len(rows)])
        mirrored = drawn >= len(rows)
        images[mirrored] = images[mirrored].flip(-1)
        images = images.to(preset.device, memory_format=torch.channels_last)
        posterior = DiagonalGaussianDistribution(encoded[drawn].to(preset.device))
        noise = torch.randn(posterior.mean.shape, generator=generator).to(images)
        decoded = model.decode(posterior.mean + posterior.std * noise).sample.float()
        return reconstruction_loss(decoded, images)

    average: nn.Module = Trainer(model, preset.decoder, directory).fit(loss)
    assert isinstance(average, AutoencoderKL)
    return average


@torch.no_grad()
def _moments(model: AutoencoderKL, corpus: Corpus, rows: Tensor, *, mirrored: bool) -> Tensor:
    """Means and logarithms of variances, float32 [n, 8, 16, 16]."""
    device = next(model.parameters()).device
    found = []
    for part in rows.split(256):
        images = corpus.pixels(part)
        images = (images.flip(-1) if mirrored else images).to(device)
        found.append(model.encode(images).latent_dist.parameters.cpu())
    return torch.cat(found)


@torch.no_grad()
def peak_signal_to_noise(model: AutoencoderKL, corpus: Corpus, rows: Tensor) -> float:
    """PSNR of the reconstructed pictures, mean over `rows`, in dB."""
    device = next(model.parameters()).device
    found = []
    for part in rows.split(256):
        images = corpus.pixels(part).to(device)
        decoded = model.decode(model.encode(images).latent_dist.mean).sample.clamp(-1, 1)
        # Pixels span 2.
        found.append(10 * torch.log10(4 / (decoded - images).square().mean((1, 2, 3))))
    return float(torch.cat(found).mean())


@torch.no_grad()
def encode_all(model: AutoencoderKL, corpus: Corpus, device: str) -> Tensor:
    """Posterior means of the whole corpus, float32 [n, 4, 16, 16], unscaled."""
    batches = torch.arange(len(corpus.captions)).split(256)
    model = model.to(device)
    return torch.cat(
        [model.encode(corpus.pixels(rows).to(device)).latent_dist.mean.cpu() for rows in batches]
    )
