"""Every size, rate and length of the training pipeline, for a GPU and for two CPU cores."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Schedule:
    """Length and pace of one training: linear warm-up, plateau, linear decay over the last part."""

    steps: int
    batch: int
    lr: float
    warmup: int = 200
    decay_fraction: float = 0.3
    weight_decay: float = 0.01
    ema: float = 0.999
    clip: float = 1.0
    seed: int = 0

    def rate(self, step: int) -> float:
        """Learning rate at `step`; depends on nothing else, so a resumed run may change `steps`."""
        rise = min(1.0, (step + 1) / self.warmup)
        fall = min(1.0, (self.steps - step) / max(1.0, self.decay_fraction * self.steps))
        return self.lr * rise * fall


@dataclass(frozen=True)
class Preset:
    """One complete configuration of the pipeline."""

    name: str
    styles: tuple[str, ...]
    device: str
    vae: Schedule
    clip: Schedule
    teacher: Schedule
    dit: Schedule
    turbo: Schedule
    dit_turbo: Schedule
    decoder: Schedule = Schedule(steps=1300, batch=32, lr=1e-3, warmup=50, ema=0.995)
    compile: bool = False
    common_concepts_only: bool = True
    vae_channels: tuple[int, ...] = (16, 32, 64)


CPU = Preset(
    name="cpu",
    styles=("noto", "flat"),
    device="cpu",
    vae=Schedule(steps=1300, batch=32, lr=2e-3, warmup=100, ema=0.995),
    clip=Schedule(steps=800, batch=128, lr=1e-3, weight_decay=0.1, ema=0.99),
    teacher=Schedule(steps=2000, batch=32, lr=1e-3, ema=0.998),
    dit=Schedule(steps=1600, batch=32, lr=1e-3, ema=0.998),
    turbo=Schedule(steps=600, batch=32, lr=3e-4, warmup=30, ema=0.99),
    dit_turbo=Schedule(steps=600, batch=32, lr=3e-4, warmup=30, ema=0.99),
)

#: Goes on from shipped weights (`python -m tools.emoji start`): fewer, larger and gentler steps.
MORE = replace(
    CPU,
    name="more",
    teacher=Schedule(steps=4000, batch=64, lr=6e-4, warmup=100, decay_fraction=0.35, seed=8),
    dit=Schedule(steps=4000, batch=64, lr=6e-4, warmup=100, decay_fraction=0.35, seed=8),
    turbo=Schedule(steps=1200, batch=64, lr=2e-4, warmup=30, ema=0.99, seed=8),
    dit_turbo=Schedule(steps=1200, batch=64, lr=2e-4, warmup=30, ema=0.99, seed=8),
)

GPU = replace(
    CPU,
    name="gpu",
    styles=("noto", "twemoji", "flat", "gradient", "3d"),
    device="cuda",
    vae=Schedule(steps=20_000, batch=128, lr=1e-3, ema=0.999),
    clip=Schedule(steps=8_000, batch=512, lr=1e-3, weight_decay=0.1, ema=0.998),
    teacher=Schedule(steps=60_000, batch=256, lr=6e-4, warmup=1000, ema=0.9995),
    dit=Schedule(steps=60_000, batch=256, lr=6e-4, warmup=1000, ema=0.9995),
    turbo=Schedule(steps=10_000, batch=256, lr=1e-4, ema=0.995),
    dit_turbo=Schedule(steps=10_000, batch=256, lr=1e-4, ema=0.995),
    compile=True,
    common_concepts_only=False,
)

PRESETS = {preset.name: preset for preset in (CPU, MORE, GPU)}


@dataclass(frozen=True)
class TextShape:
    """The causal text encoder, and the constant start token it is built around.

    CLIP's token 0 carries a constant vector some 80 times larger than any other token's entries,
    concentrated in a few dimensions. Small encoders do not grow one by themselves in a short
    training, so it is built in: `outlier_dims` of the residual stream belong to token 0 alone.
    """

    width: int = 256
    layers: int = 4
    heads: int = 4
    length: int = 16
    vocabulary: int = 2048
    outlier_dims: tuple[int, ...] = (11, 73, 140, 222)
    outlier_gain: float = 40.0


@dataclass(frozen=True)
class Diffusion:
    """Noise schedule shared by every denoiser: v-prediction with zero terminal SNR."""

    train_steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    guidance: float = 4.5
    drop_caption: float = 0.1
    teacher_steps: int = 20
    turbo_steps: int = 4
    solver_substeps: int = 2
    text: TextShape = field(default_factory=TextShape)
