"""Every switch of the MPQ-DM recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mezzotint.errors import UsageError
from mezzotint.formats import RangeSearch
from mezzotint.recipes.option_values import check_words

Inputs = Literal["step", "tensor", "token"]
Shortcuts = Literal["floating", "quantized"]

PUBLISHED_RANGES = RangeSearch(steps=80, lowest=0.21, power=2.4)
"""Clip ratios 1.00, 0.99 … 0.21 of the full range."""

USUAL_MINUTES = 10.0
"""Of training, where nothing is said."""


@dataclass(frozen=True)
class MPQDM:
    """MPQ-DM (arXiv 2412.11549) with its variants and what we add; EfficientDM is one of them.

    EfficientDM is `channels=none`, `smoothing=false`, `feature_loss=none`: the same training of
    one width per layer.

    Attributes:
        calibration_prompts: how many to take where none are given.
        samples: the most samples of each denoising step's call to keep, spread over the prompts and
            the halves of guidance; none for all of them.
        search: numbers of outlier channels that are tried. `paper`: none to half of a layer's, in
            tenths, by the product of rounded inputs and weights; `released`: none or a tenth, by
            rounded weights alone, as the authors' code does.
        channels: which output channels get a bit more, and which a bit less: those of the highest
            and lowest `kurtosis`, at `random`, the first and last (`head-tail`), or `none` at all.
        plus: outlier channels get their bit more, but no channel a bit less (MPQ-DM+): the average
            is above the nominal width.
        one_bit_levels: channels of one bit have two free levels each, and not a scale and a whole
            zero point, one of whose two values is 0.
        ranges: choice of the weights' clipping ranges.
        rounding: of the weights that training starts from: to the `nearest` value, as published, or
            with `feedback` of each column's error to those left (GPTQ).
        smoothing: divide input channels, and multiply the weights that read them, by powers of two
            which even out their ranges.
        inputs: scales of quantized inputs: one per denoising `step`, one for all (`tensor`), or
            found from each input (`token`).
        bos: keep the constant first token of text embeddings out of the quantizers (MixDQ).
        shortcuts: layers in which skip connections or resolutions change stay `floating`, as
            published, or are `quantized` like the others.
        counting: `nominal`: every layer has the budget's width, exactly, and the exceptions more,
            as the paper counts; `stored` counts all bytes, and gives layers different widths.
        train_minutes: minutes of training, 10 unless `train_steps` are given; 0 for none.
        train_steps: updates of training, in place of minutes; 0 for none.
        train: parameters that are trained beside biases, norms and the quantizers' own: `lora`
            inside the rounding, the `weights` themselves, or none (`scales`).
        rank: of LoRA, the layer's smaller side at most.
        lora_init: LoRA's start: `zero`, or the `svd` of what rounding loses.
        batch: prompts per update.
        feature_loss: compares the features before the output of both models: their relations
            (`trd`), their values (`l2`), or `none`.
        trd_graph: one update per `window` of denoising steps, with gradients through all of its
            features; or one per step, earlier features without a gradient (`stop`).
        window: denoising steps whose features are averaged.
        temperature: of the softmax over relations; by default one found to matter.
        relation_weight: of the feature loss; by default one found to matter.
        trajectory: states that training sees: those of the floating model (`teacher`), or for a
            share of the updates those of the trained one (`mixed`).
        seed: of the training's noise and order.
    """

    calibration_prompts: int = 8
    samples: int | None = 8
    search: Literal["paper", "released"] = "paper"
    channels: Literal["kurtosis", "random", "head-tail", "none"] = "kurtosis"
    plus: bool = False
    one_bit_levels: bool = True
    ranges: RangeSearch = PUBLISHED_RANGES
    rounding: Literal["nearest", "feedback"] = "nearest"
    smoothing: bool = True
    inputs: Inputs = "step"
    bos: bool = True
    shortcuts: Shortcuts = "floating"
    counting: Literal["nominal", "stored"] = "nominal"
    train_minutes: float | None = None
    train_steps: int | None = None
    train: Literal["lora", "weights", "scales"] = "lora"
    rank: int = 32
    lora_init: Literal["zero", "svd"] = "zero"
    batch: int = 4
    feature_loss: Literal["trd", "l2", "none"] = "trd"
    trd_graph: Literal["window", "stop"] = "window"
    window: int = 2
    temperature: float | None = None
    relation_weight: float | None = None
    trajectory: Literal["teacher", "mixed"] = "teacher"
    seed: int = 0

    def __post_init__(self) -> None:
        check_words(self)
        for name in ("calibration_prompts", "samples", "rank", "batch", "window"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}: is {value}; give 1 or more")
        for name in ("temperature", "relation_weight"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name}: is {value}; give a positive number")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed: is {self.seed}; give 0 or more")
        self._check_training()

    def _check_training(self) -> None:
        if self.train_minutes is not None and self.train_steps is not None:
            raise UsageError("train_steps: stands in place of train_minutes; leave one of them out")
        if self.train_minutes is not None and not 0 <= self.train_minutes < math.inf:
            raise UsageError(f"train_minutes: is {self.train_minutes}; give 0 or more")
        if self.train_steps is not None and self.train_steps < 0:
            raise UsageError(f"train_steps: is {self.train_steps}; give 0 or more")

    @property
    def minutes(self) -> float | None:
        """Minutes of training; None where updates are counted."""
        if self.train_steps is not None:
            return None
        return USUAL_MINUTES if self.train_minutes is None else self.train_minutes

    @property
    def trains(self) -> bool:
        """True where there is any training."""
        return bool(self.train_steps if self.minutes is None else self.minutes)

    @property
    def mixes_widths(self) -> bool:
        """True where channels of a layer may have different widths."""
        return self.channels != "none"
