"""What a layer puts out for a token that is the same in every prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mezzotint.models import Call

_TOLERANCE = 1e-4
"""Greatest relative difference of equal tokens; encoders round by the size of their batch."""


@dataclass(frozen=True, eq=False)
class ConstantOutputs:
    """Which layers have a constant first token.

    Attributes:
        constants: layer → its floating-point output for the first token, bias included: float32
            [1, out_features]. `Packing.constants` takes them.
        refused: layer → why its first token is not known to be constant.
    """

    constants: Mapping[str, Tensor]
    refused: Mapping[str, str]


@torch.no_grad()
def constant_outputs(
    denoiser: nn.Module, names: Sequence[str], calls: Sequence[Call]
) -> ConstantOutputs:
    """The output of every named Linear for the first token of its input, where that is constant.

    A causal text encoder gives every prompt the same first embedding; others, such as T5, do not
    (MixDQ, arXiv 2405.17873). Layers are accepted only where the recorded calls show it: the first
    token is the same in all samples of all calls, value by value, up to the rounding of its dtype,
    while others differ. So record two different prompts or more.
    """
    if not names:
        return ConstantOutputs({}, {})
    watched = {name: _Watched() for name in names}
    with ExitStack() as hooks:
        for name, layer in watched.items():
            module = denoiser.get_submodule(name)
            if isinstance(module, nn.Linear):
                hooks.enter_context(module.register_forward_hook(layer.observe))
            else:
                layer.refusal = f"it is a {type(module).__name__}, not a Linear"
        for call in calls:
            call.run(denoiser)
    refused = {name: why for name, layer in watched.items() if (why := layer.reason())}
    constants = {
        name: layer.output
        for name, layer in watched.items()
        if layer.output is not None and name not in refused
    }
    return ConstantOutputs(constants, refused)


@dataclass
class _Watched:
    """One layer: its first sample, and how all later ones compare with it."""

    refusal: str | None = None
    sample: Tensor | None = field(default=None, init=False)
    output: Tensor | None = field(default=None, init=False)
    prompts_differ: bool = field(default=False, init=False)

    def observe(self, module: nn.Linear, inputs: tuple[Any, ...], output: Tensor) -> None:
        """A forward hook."""
        x: Tensor = inputs[0]
        if self.refusal is not None or 0 in x.shape[:1]:
            return
        if x.ndim != 3:
            shape = tuple(x.shape)
            self.refusal = f"its input of shape {shape} is not [batch, tokens, features]"
        elif x.shape[1] < 2:
            self.refusal = "its input has a single token, which every prompt changes"
        elif not bool(x.isfinite().all()):
            self.refusal = "its input holds NaN or infinite values"
        else:
            self._compare(x, output)

    def _compare(self, x: Tensor, output: Tensor) -> None:
        if self.sample is None:
            self.sample = x[0].clone()
            self.output = output[0, :1].to(torch.float32, copy=True)
        if not _same(x[:, :1], self.sample[:1]):
            self.refusal = "its first token is not the same in all prompts and steps"
        others = self.sample[1:]
        if x.shape[1:] != self.sample.shape or not _same(x[:, 1:], others):
            self.prompts_differ = True

    def reason(self) -> str | None:
        """Why the layer is refused; None where it is accepted."""
        if self.refusal is not None:
            return self.refusal
        if self.sample is None:
            return "no recorded call reaches it"
        if not self.prompts_differ:
            return (
                "all recorded prompts are alike, which shows nothing; record two different prompts"
            )
        return None


def _same(tokens: Tensor, expected: Tensor) -> bool:
    """Whether every sample of [batch, tokens, features] equals [tokens, features]."""
    tolerance = max(_TOLERANCE, 4 * torch.finfo(expected.dtype).eps)
    magnitudes = expected.float().abs()
    # The median and not the peak: beside one huge value all others would pass for equal.
    allowed = tolerance * (magnitudes + magnitudes.median())
    return bool(((tokens.float() - expected.float()).abs() <= allowed).all())
