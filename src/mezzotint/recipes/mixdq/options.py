"""Every switch of the MixDQ recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mezzotint._words import check_words
from mezzotint.errors import UsageError
from mezzotint.formats import FLOAT, MINMAX, RangeSearch
from mezzotint.measuring import CACHE_BYTES
from mezzotint.plan import check_momentum
from mezzotint.recipes.found_structures import Shortcuts
from mezzotint.recipes.option_values import selected_calls
from mezzotint.recipes.restrictions import Restrictions

Metric = Literal["decoupled", "sqnr"]
BudgetSplit = Literal["sweep", "joint", "none"]


@dataclass(frozen=True)
class MixDQ:
    """MixDQ as published (arXiv 2405.17873), with its variants and what we add.

    Attributes:
        calibration_prompts: how many to take where none are given.
        calls: the most calls of the denoiser to keep of the pipeline's run, at timesteps spread
            over all of it, of 8 samples each; none for all of them, whole, as published: moving
            averages of static ranges go from one call to the next.
        symmetric: weights as signed codes around zero (the paper's symmetric form) instead of
            codes with a zero point per output channel.
        content_weight_bits: candidate widths of the content layers' weights.
        quality_weight_bits: candidate widths of the quality layers' weights.
        activation_bits: candidate widths of every layer's input.
        activation: `tensor` for static ranges, as in the paper; `token` for dynamic ones, found at
            run time.
        momentum: of the moving average that tracks static ranges; 0.95 in the paper, none for the
            lowest and highest value ever seen.
        bos: keep the constant first token of text embeddings out of the quantizers.
        shortcuts: which layers get a quantizer per half of a concatenated input: `shortcuts` of
            residual blocks as in the paper, all `concatenations` that a layer reads directly, or
            `none`.
        metric: `decoupled` measures content layers by the images' SSIM and quality layers by the
            output's SQNR; `sqnr` measures all by SQNR and solves one program (the paper's
            ablation); inputs are protected by group all the same.
        content: patterns of the content layers; by default the roles decide.
        split: `sweep` tries many divisions of the average between the groups and lets the images
            choose; `joint` brings both groups' scores to one unit, the final image error, and
            solves one program; `none` divides the average evenly. With one metric there is one
            program, and nothing to divide.
        joint_plans: random plans measured to find that unit.
        tolerance: none for averages of at most the budget; bits on both sides of it otherwise
            (0.02 in the released code), which does not go with a size.
        counting: `stored` counts scales and zero points as part of a weight's bits, `nominal`
            counts the width alone, as the paper does.
        activation_cost: what an input's width is multiplied with in the average of activations:
            its `bytes` (elements), or the `macs` it takes part in.
        pin: layers whose weight is decided, each as `PATTERN=uint8/channel`, or with the input as
            well, `PATTERN=uint8/channel:float`; the programs spend the rest. The last that names a
            layer holds.
        exclude: patterns of layers that stay floating. Their weights do not count in averages.
        protect: share of each group whose inputs stay floating, those with the lowest scores.
        selection_prompts: prompts on which candidates are compared.
        search: choice of the weights' clipping ranges; min-max in the paper.
        rounding: of the weights: `feedback` of each column's error to those left (GPTQ), or to the
            `nearest` value, as published.
        screen: tell candidates that cannot matter from a few backward passes, and measure only the
            others.
        cache_bytes: memory for activations kept while measuring; 0 keeps none.
    """

    calibration_prompts: int = 32
    calls: int | None = None
    symmetric: bool = False
    content_weight_bits: tuple[int, ...] = (2, 4, 8)
    quality_weight_bits: tuple[int, ...] = (4, 8)
    activation_bits: tuple[int, ...] = (4, 8)
    activation: Literal["tensor", "token"] = "tensor"
    momentum: float | None = 0.95
    bos: bool = True
    shortcuts: Shortcuts = "shortcuts"
    metric: Metric = "decoupled"
    content: tuple[str, ...] = ()
    split: BudgetSplit = "sweep"
    joint_plans: int = 12
    tolerance: float | None = None
    counting: Literal["stored", "nominal"] = "stored"
    activation_cost: Literal["bytes", "macs"] = "bytes"
    pin: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    protect: float = 0.01
    selection_prompts: int = 8
    search: RangeSearch = MINMAX
    rounding: Literal["feedback", "nearest"] = "feedback"
    screen: bool = False
    cache_bytes: int = CACHE_BYTES

    def __post_init__(self) -> None:
        self._check_widths()
        self._check_words()
        self._check_numbers()
        self._check_pins()

    def _check_pins(self) -> None:
        inputs = [FLOAT, *map(self.activation_format, self.activation_bits)]
        for pin in self.restrictions.pins:
            if pin.activation is not None and pin.activation not in inputs:
                raise UsageError(
                    f"pin {pin.text!r}: inputs are one of {', '.join(inputs)} in this recipe; "
                    "give one of these, or other activation_bits"
                )

    def _check_widths(self) -> None:
        for name in ("content_weight_bits", "quality_weight_bits", "activation_bits"):
            widths = getattr(self, name)
            lowest = 2 if name == "activation_bits" else 1
            if not widths or any(not lowest <= width <= 8 for width in widths):
                raise UsageError(f"{name}: is {widths}; give one width or more, {lowest} to 8")

    def _check_words(self) -> None:
        check_words(self)
        if self.metric == "sqnr" and self.split == "joint":
            raise UsageError("split: joint brings two metrics to one unit; leave it out with sqnr")

    def _check_numbers(self) -> None:
        for name in ("calibration_prompts", "selection_prompts", "joint_plans"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: is {getattr(self, name)}; give 1 or more")
        if self.tolerance is not None and not 0 <= self.tolerance < math.inf:
            raise UsageError(f"tolerance: is {self.tolerance}; give bits, 0 or more, or none")
        check_momentum(self.momentum)
        selected_calls(self.calls)
        if not 0 <= self.protect < 1:
            raise UsageError(f"protect: is {self.protect}; give a share from 0 to below 1")
        if self.cache_bytes < 0:
            raise UsageError(f"cache_bytes: is {self.cache_bytes}; give 0 or more")

    @property
    def restrictions(self) -> Restrictions:
        """Pins and exclusions."""
        return Restrictions.of(self.pin, self.exclude)

    @property
    def compares_images(self) -> bool:
        """True where images decide anything, of single layers or of whole plans."""
        return self.metric == "decoupled"

    def weight_format(self, width: int) -> str:
        """Name of the weight format of `width` bits, per output channel."""
        return f"{'' if self.symmetric else 'u'}int{width}/channel"

    def activation_format(self, width: int) -> str:
        """Name of the activation format of `width` bits."""
        return f"uint{width}/tensor" if self.activation == "tensor" else f"int{width}/token"
