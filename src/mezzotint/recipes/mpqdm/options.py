"""Every switch of the MPQ-DM recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from mezzotint._words import check_words
from mezzotint.errors import UsageError
from mezzotint.formats import RangeSearch
from mezzotint.recipes.distillation import USUAL_MINUTES
from mezzotint.training.options import Rates, Trained, Training

Inputs = Literal["step", "tensor", "token"]
Shortcuts = Literal["floating", "quantized"]

PUBLISHED_RANGES = RangeSearch(steps=80, lowest=0.21, power=2.4)
"""Clip ratios 1.00, 0.99 … 0.21 of the full range."""


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
            and lowest `kurtosis`, of the widest and narrowest `range`, at `random`, the first and
            last (`head-tail`), or `none` at all.
        plus: outlier channels get their bit more, but no channel a bit less (MPQ-DM+): the average
            is above the nominal width.
        one_bit_levels: channels of one bit have two free levels each, and not a scale and a whole
            zero point, one of whose two values is 0.
        ranges: choice of the weights' clipping ranges.
        rounding: of the weights that training starts from: to the `nearest` value, as published, or
            with `feedback` of each column's error to those left (GPTQ).
        smoothing: divide input channels, and multiply the weights that read them, by powers of two
            which even out their ranges.
        smoothing_norms: where nothing but smoothed layers of one input reads what a norm puts out,
            the norm takes up the powers of two, and no exponent is stored. Adapters that were made
            for the original are refused there, since they would read other inputs.
        inputs: scales of quantized inputs: one per denoising `step`, one for all (`tensor`), or
            found from each input (`token`). Where bytes are counted, the tables are as well, and
            a layer may have either those or scales per token, or a floating input.
        step_bits: inputs have 2 to 8 bits at each denoising step, more where rounding them loses
            more, and the budget's on average over all steps and multiply-accumulates.
        bos: keep the constant first token of text embeddings out of the quantizers (MixDQ).
        shortcuts: layers in which skip connections or resolutions change stay `floating`, as
            published, or are `quantized` like the others.
        counting: `nominal`: every layer has the budget's width, exactly, and the exceptions more,
            as the paper counts; `stored`, or a size, counts all bytes: one program gives layers
            different formats, mixtures of widths among them, and there are no exceptions.
        train_minutes: minutes of training, 10 unless `train_steps` are given; 0 for none.
        train_steps: updates of training, in place of minutes; 0 for none.
        train: `lora` inside the rounding or the `weights` themselves, each with the scales and zero
            points of the quantizers; or `scales`, biases and norms, while weights keep their codes.
        rank: of LoRA, the layer's smaller side at most.
        lora_init: LoRA's start: `zero`, or the `svd` of what rounding loses.
        batch: prompts per update.
        feature_loss: compares the features before the output of both models: their relations
            (`trd`), their values (`l2`), or `none`.
        trd_graph: one update per `window` of denoising steps, with gradients through all of its
            features; or one per step, earlier features without a gradient (`stop`).
        window: denoising steps whose features are averaged.
        temperature: of the softmax over relations; 1 is published.
        relation_weight: of the feature loss; 100 is published.
        trajectory: states that training sees: those of the floating model (`teacher`), or for a
            share of the trajectories those that the trained one draws itself (`mixed`).
        own_share: share of those trajectories, from 0 to 1.
        rates: learning rates: those found to move something within minutes (`ours`), or those
            `published` for hours of updates.
        autocast: compute training in bfloat16, on GPUs without it in float16 with a scaled loss;
            none for all GPUs, and processors that compute in bfloat16.
        checkpointing: compute blocks again in training's backward pass, to save memory; none for
            where memory may run short.
        seed: of the training's noise and order.
    """

    calibration_prompts: int = 8
    samples: int | None = 8
    search: Literal["paper", "released"] = "paper"
    channels: Literal["kurtosis", "range", "random", "head-tail", "none"] = "kurtosis"
    plus: bool = False
    one_bit_levels: bool = True
    ranges: RangeSearch = PUBLISHED_RANGES
    rounding: Literal["nearest", "feedback"] = "nearest"
    smoothing: bool = True
    smoothing_norms: bool = True
    inputs: Inputs = "step"
    step_bits: bool = False
    bos: bool = True
    shortcuts: Shortcuts = "floating"
    counting: Literal["nominal", "stored"] = "nominal"
    train_minutes: float | None = None
    train_steps: int | None = None
    train: Trained = Training.train
    rank: int = Training.rank
    lora_init: Literal["zero", "svd"] = Training.lora_init
    batch: int = Training.batch
    feature_loss: Literal["trd", "l2", "none"] = Training.feature_loss
    trd_graph: Literal["window", "stop"] = Training.trd_graph
    window: int = Training.window
    temperature: float = Training.temperature
    relation_weight: float = Training.relation_weight
    trajectory: Literal["teacher", "mixed"] = Training.trajectory
    own_share: float = Training.own_share
    rates: Literal["ours", "published"] = "ours"
    autocast: bool | None = Training.autocast
    checkpointing: bool | None = Training.checkpointing
    seed: int = Training.seed

    def __post_init__(self) -> None:
        check_words(self)
        for name in ("calibration_prompts", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}: is {value}; give 1 or more")
        if self.step_bits and self.inputs != "step":
            raise UsageError(
                f"step_bits: goes with a scale for each step, not with inputs {self.inputs}"
            )
        if self.train_minutes is not None and self.train_steps is not None:
            raise UsageError("train_steps: stands in place of train_minutes; leave one of them out")
        if self.train_minutes is not None and not 0 <= self.train_minutes < math.inf:
            raise UsageError(f"train_minutes: is {self.train_minutes}; give 0 or more")
        if self.train_steps is not None and self.train_steps < 0:
            raise UsageError(f"train_steps: is {self.train_steps}; give 0 or more")
        _ = self.training  # checks everything else that it takes

    @property
    def training(self) -> Training:
        """The options of training.

        Raises:
            UsageError: a value is out of its domain.
        """
        minutes = USUAL_MINUTES if self.train_minutes is None else self.train_minutes
        shared = {field.name for field in fields(Training)} & {field.name for field in fields(self)}
        return Training(
            minutes=None if self.train_steps is not None else minutes,
            steps=self.train_steps,
            rates=Rates.published() if self.rates == "published" else Rates(),
            **{name: getattr(self, name) for name in shared - {"rates"}},
        )

    @property
    def mixes_widths(self) -> bool:
        """True where channels of a layer may have different widths."""
        return self.channels != "none"
