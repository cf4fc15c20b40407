"""The denoisers: a UNet shaped like SDXL's and a transformer shaped like PixArt's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDIMScheduler, PixArtTransformer2DModel, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from tools.emoji.config import Diffusion, Schedule
from tools.emoji.training import Trainer

LATENT = (4, 16, 16)


@dataclass(frozen=True)
class Latents:
    """The training set as the denoisers see it: scaled latents and frozen text embeddings.

    The last row of `text` and `mask` is the empty caption.
    """

    images: Tensor
    text: Tensor
    mask: Tensor
    rows: Tensor

    def draw(self, count: int, drop: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Training rows, and rows of their captions with some replaced by the empty one."""
        rows = self.rows[torch.randint(len(self.rows), (count,), generator=generator)]
        dropped = torch.rand(count, generator=generator) < drop
        return rows, torch.where(dropped, len(self.text) - 1, rows)


def build_unet(diffusion: Diffusion) -> UNet2DConditionModel:
    """11M parameters: SDXL's order of blocks (plain, cross-attention, cross-attention)."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128, 192),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=diffusion.text.width,
        attention_head_dim=8,
        use_linear_projection=True,
    )


def build_dit(diffusion: Diffusion) -> PixArtTransformer2DModel:
    """9M parameters: eight PixArt blocks of width 256 on 2×2 patches."""
    return PixArtTransformer2DModel(
        num_attention_heads=8,
        attention_head_dim=32,
        in_channels=4,
        out_channels=4,
        num_layers=8,
        cross_attention_dim=256,
        sample_size=16,
        patch_size=2,
        caption_channels=diffusion.text.width,
        use_additional_conditions=False,
    )


def scheduler(diffusion: Diffusion) -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=diffusion.train_steps,
        beta_start=diffusion.beta_start,
        beta_end=diffusion.beta_end,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )


class TextScaled(nn.Module):
    """A denoiser seen through text embeddings whose outlier dimensions are scaled down.

    Training with inputs divided by the gain and weights multiplied by it is the same function with
    a step size that the optimizer can bear; `fold` puts the gain back into the weights, so the
    finished denoiser reads the text encoder's real output.
    """

    def __init__(self, denoiser: nn.Module, diffusion: Diffusion) -> None:
        super().__init__()
        self.denoiser = denoiser
        scale = torch.ones(diffusion.text.width)
        scale[list(diffusion.text.outlier_dims)] = 1.0 / diffusion.text.outlier_gain
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, x: Tensor, t: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """v of noisy latents `x` [n, 4, 16, 16] at steps `t` [n]."""
        text = text * self.scale
        if isinstance(self.denoiser, UNet2DConditionModel):
            return self.denoiser(x, t, text).sample
        return self.denoiser(
            x,
            encoder_hidden_states=text,
            timestep=t,
            encoder_attention_mask=mask,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample

    @torch.no_grad()
    def fold(self) -> nn.Module:
        """Multiply the scale into every Linear that reads the text; returns the bare denoiser."""
        for reader in self._readers():
            reader.weight *= self.scale
        return self.denoiser

    @torch.no_grad()
    def unfold(self) -> TextScaled:
        """Divide the weights that read the text by the scale: the denoiser is a folded one."""
        for reader in self._readers():
            reader.weight /= self.scale
        return self

    def _readers(self) -> list[nn.Module]:
        """The Linear layers that read the text."""
        endings = ("attn2.to_k", "attn2.to_v")
        if isinstance(self.denoiser, PixArtTransformer2DModel):
            endings = ("caption_projection.linear_1",)
        return [m for name, m in self.denoiser.named_modules() if name.endswith(endings)]


class Process:
    """Forward diffusion in closed form, in float32. Step -1 is the image itself."""

    def __init__(self, diffusion: Diffusion) -> None:
        # The appended 1 is what index -1 finds.
        cumulative = torch.cat([scheduler(diffusion).alphas_cumprod, torch.ones(1)])
        self.alpha = cumulative.sqrt()
        self.sigma = (1 - cumulative).sqrt()

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, 1, 1, 1)
        alpha, sigma = self.alpha[t.cpu()], self.sigma[t.cpu()]
        return alpha.view(shape).to(t.device), sigma.view(shape).to(t.device)

    def noisy(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.coefficients(t)
        return alpha * x0 + sigma * noise

    def velocity(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.coefficients(t)
        return alpha * noise - sigma * x0

    def velocity_between(self, x: Tensor, t: Tensor, end: Tensor, s: Tensor) -> Tensor:
        """The v at step `t` with which one DDIM step leads from `x` to `end` at step `s`."""
        alpha, sigma = self.coefficients(t)
        alpha_end, sigma_end = self.coefficients(s)
        ratio = sigma_end / sigma
        x0 = (end - ratio * x) / (alpha_end - ratio * alpha)
        noise = (x - alpha * x0) / sigma
        return alpha * noise - sigma * x0

    def split(self, x: Tensor, v: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(x0, noise) that `v` says `x` is made of."""
        alpha, sigma = self.coefficients(t)
        return alpha * x - sigma * v, sigma * x + alpha * v


def train(
    wrapped: TextScaled,
    data: Latents,
    diffusion: Diffusion,
    schedule: Schedule,
    directory: Path,
) -> TextScaled:
    """Ordinary v-prediction training with caption dropout; returns the averaged model."""
    process = Process(diffusion)
    device = next(wrapped.parameters()).device

    def loss(generator: torch.Generator) -> Tensor:
        rows, captions = data.draw(schedule.batch, diffusion.drop_caption, generator)
        x0 = data.images[rows].to(device)
        noise = torch.randn(x0.shape, generator=generator).to(device)
        t = torch.randint(diffusion.train_steps, (len(rows),), generator=generator).to(device)
        text, mask = data.text[captions].to(device), data.mask[captions].to(device)
        predicted = wrapped(process.noisy(x0, noise, t), t, text, mask)
        return mse_loss(predicted.float(), process.velocity(x0, noise, t))

    average = Trainer(wrapped, schedule, directory).fit(loss)
    assert isinstance(average, TextScaled)
    return average
