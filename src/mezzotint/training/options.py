"""Every switch of training."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from mezzotint._words import check_words
from mezzotint.errors import UsageError

Trained = Literal["lora", "weights", "scales"]


@dataclass(frozen=True)
class Rates:
    """Learning rates at the start; all fall to 0 on a straight line.

    The defaults are for hundreds to a few thousand updates. On `emoji-teacher` with 1, 2 and 3 bits
    per channel and 4-bit inputs per step, 40 updates without a feature loss leave a relative loss
    of 0.42 on a trajectory that is held out, with scales at a third of these rates; of 0.41 with
    scales five times as fast as that, and of 0.43 with LoRA four times as fast. Training the
    weights themselves eight times as fast as here ends at 0.54, and the published rates at 0.51.

    Attributes:
        lora: of both factors of LoRA, in steps of the layer's grid: times its mean Δ.
        weights: of the weights themselves, likewise.
        weight_scale: of log Δ of weights, and of levels of tables as a share of themselves.
        weight_zero_point: of zero points of weights, in codes.
        input_scale: of log Δ of inputs.
        input_zero_point: of zero points of inputs, in codes.
        floating: of biases and of weights of norms, as a share of their root mean square.
        decay: of the weights of LoRA, as AdamW has it.
    """

    lora: float = 1e-2
    weights: float = 5e-3
    weight_scale: float = 3e-3
    weight_zero_point: float = 1e-3
    input_scale: float = 3e-3
    input_zero_point: float = 1e-2
    floating: float = 1e-3
    decay: float = 0.01

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not 0 <= value < math.inf:
                raise UsageError(f"rates: {name} is {value}; give 0 or more")

    @classmethod
    def published(cls) -> Rates:
        """The rates of EfficientDM and MPQ-DM, for 16,000 updates.

        They are Δ/2500 for LoRA, 1e-6 for Δ and z of weights and 5e-4 for those of inputs. There
        Δ itself is learned: at the Δ of 2-bit weights, 0.01 to 0.1, and of 4-bit inputs, 0.1 to 1,
        these are changes of log Δ of 1e-5 to 1e-4, and of 5e-4 to 5e-3.
        """
        return cls(
            lora=1 / 2500,
            weights=1 / 2500,
            weight_scale=3e-5,
            weight_zero_point=1e-6,
            input_scale=1.5e-3,
            input_zero_point=5e-4,
        )


@dataclass(frozen=True)
class Training:
    """Data-free distillation of a floating denoiser into its quantized form.

    Attributes:
        minutes: of training, counted over all interruptions; 0 for none.
        steps: updates, in the place of minutes. A run of so many is the same whether or not it
            was interrupted.
        train: `lora` inside the rounding, the `weights` themselves, each with the scales of
            weights and inputs; or `scales`, biases and norms, while every weight keeps its code.
        rank: of LoRA; the layer's smaller side at most.
        lora_init: LoRA's start: `zero`, or the `svd` of what rounding loses.
        batch: prompts per update.
        feature_loss: compares the inputs of both models' output norm: the relations of their
            positions (`trd`), their values (`l2`), or `none`.
        trd_graph: one update per `window` of denoising steps, with gradients through all of its
            features; or one per step, earlier features without gradients (`stop`).
        window: denoising steps whose features are averaged; fewer at a trajectory's end.
        temperature: τ of the softmax over relations.
        relation_weight: λ of the feature loss. On `emoji-teacher` with 1, 2 and 3 bits per channel
            and 4-bit inputs per step, τ = 0.1 and λ = 4 make the gradient of the relation loss 6%,
            79%, 87% and 27% of the main one's after 2, 8, 14 and 20 of 20 steps; the published
            τ = 1 and λ = 100 3%, 47%, 66% and 26%.
        trajectory: states that training sees: those of the floating model (`teacher`), or for
            `own_share` of the trajectories those that the trained one draws itself (`mixed`).
        own_share: see `trajectory`.
        rates: learning rates.
        untrained_bits: weights of so many bits or more stay as the plan's rounding has them, and
            inputs of so many bits as they are calibrated, where the weights do; unless scales alone
            are trained. Of a layer whose parts have several formats, the narrowest counts.
        autocast: compute in bfloat16, on GPUs without it in float16 with a scaled loss; None for
            all GPUs, and processors that compute in bfloat16.
        checkpointing: compute blocks again in the backward pass, to save memory; None for where
            memory may run short.
        seed: of noise, order of prompts, and LoRA.

    Raises:
        UsageError: a value is out of its domain.
    """

    minutes: float | None = None
    steps: int | None = None
    train: Trained = "lora"
    rank: int = 32
    lora_init: Literal["zero", "svd"] = "zero"
    batch: int = 4
    feature_loss: Literal["trd", "l2", "none"] = "trd"
    trd_graph: Literal["window", "stop"] = "window"
    window: int = 2
    temperature: float = 0.1
    relation_weight: float = 4.0
    trajectory: Literal["teacher", "mixed"] = "teacher"
    own_share: float = 0.5
    rates: Rates = field(default_factory=Rates)
    untrained_bits: int = 8
    autocast: bool | None = None
    checkpointing: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise UsageError("minutes or steps: give one of them, and not both")
        if self.minutes is not None and not 0 <= self.minutes < math.inf:
            raise UsageError(f"minutes: is {self.minutes}; give 0 or more")
        if self.steps is not None and self.steps < 0:
            raise UsageError(f"steps: is {self.steps}; give 0 or more")
        self._check_numbers()
        check_words(self)

    def _check_numbers(self) -> None:
        for name in ("rank", "batch", "window", "untrained_bits"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: is {getattr(self, name)}; give 1 or more")
        for name in ("temperature", "relation_weight"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name}: is {getattr(self, name)}; give a positive number")
        if not 0 <= self.own_share <= 1:
            raise UsageError(f"own_share: is {self.own_share}; give 0 to 1")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed: is {self.seed}; give 0 or more")

    @property
    def trains(self) -> bool:
        """True where there is any training."""
        return bool(self.minutes or self.steps)

    def progress(self, updates: int, minutes: float) -> float:
        """The share of the training that is done, from 0 to 1."""
        done, limit = (minutes, self.minutes) if self.steps is None else (updates, self.steps)
        assert limit is not None
        return min(done / limit, 1.0) if limit else 1.0

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self)
