"""Error of a layer's output that rounding its input makes, as recorded inputs tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mezzotint.calibration.watching import Watch, extremes, layer_of, watch_together
from mezzotint.formats import ActivationFormat
from mezzotint.models import Call
from mezzotint.plan import Choice, Reader, Tensors
from mezzotint.runtime import Operation, operation_of, own_tensors, quantizers, shape_of
from mezzotint.runtime.composition import part_weights


def input_noises(
    denoiser: nn.Module,
    choices: Mapping[str, Choice],
    calls: Sequence[Call],
    tensors: Mapping[str, Tensors] | None = None,
) -> dict[str, float]:
    """Expected squared error of every layer's output where its input alone is rounded.

    The errors of different channels and positions are taken for independent, and borders of
    convolutions for inner positions. So figures of one layer under different choices can be
    compared. Calibrated formats, per tensor or per step, have the range of the run at hand.

    Args:
        denoiser: the floating model.
        choices: layer → activation format and structures; the weight format does not matter.
        calls: recorded calls.
        tensors: layer → what its structures have calibrated.

    Raises:
        CalibrationError, PlanError, FormatError: as `watch_inputs`.
    """
    (found,) = input_noises_together(denoiser, [(choices, tensors or {})], calls, label=None)
    return found


def input_noises_together(
    denoiser: nn.Module,
    asked: Sequence[tuple[Mapping[str, Choice], Mapping[str, Tensors]]],
    calls: Sequence[Call],
    *,
    label: str | None,
) -> list[dict[str, float]]:
    """The errors of `input_noises` for each of several choices of all layers, from the same runs.

    Args:
        denoiser: the floating model.
        asked: choices and tensors as of `input_noises`.
        calls: recorded calls.
        label: of the progress that is shown; None for none, where it is a part of other work.

    Raises:
        CalibrationError, PlanError, FormatError: as `watch_inputs`.
    """
    sums = [
        {
            name: _sums(layer_of(denoiser, name), choice, tensors.get(name, {}))
            for name, choice in choices.items()
            if choice.activation_format is not None
        }
        for choices, tensors in asked
    ]
    watches = [
        Watch(choices, own, tensors) for (choices, tensors), own in zip(asked, sums, strict=True)
    ]
    watch_together(denoiser, watches, calls, label=label)
    return [
        {name: float(own[name].total) if name in own else 0.0 for name in choices}
        for (choices, _), own in zip(asked, sums, strict=True)
    ]


def _sums(layer: nn.Linear | nn.Conv2d, choice: Choice, known: Tensors) -> _Sums:
    weight, shape = layer.weight.detach(), shape_of(layer)
    own = own_tensors(choice.structures, weight, shape, known)
    weights = part_weights(weight, choice.structures, shape, own)
    shapes = (each for _, each in quantizers(choice.structures, shape))
    activation = choice.activation_format
    assert activation is not None
    energies = [
        Reader(part, each).channel_energies for part, each in zip(weights, shapes, strict=True)
    ]
    return _Sums(operation_of(layer), activation, energies)


@dataclass(eq=False)
class _Sums:
    """The error of one layer's output, summed over all runs; a watcher.

    Attributes:
        operation: of the layer.
        activation: format of its input.
        energies: Σ w² of each input channel, for each quantizer.
    """

    operation: Operation
    activation: ActivationFormat
    energies: Sequence[Tensor]
    total: Tensor | float = field(default=0.0, init=False)

    def see(self, parts: tuple[Tensor, ...]) -> None:
        """Add the errors of one run."""
        for x, energies in zip(parts, self.energies, strict=True):
            low, high = extremes(x)
            if self.activation.dynamic:
                dims = self.operation.scale_dims(self.activation)
                scale, zero_point = self.activation.dynamic_parameters(x, dims)
            else:
                scale, zero_point = self.activation.range_parameters(low, high, x.device)
            exact = x.detach().float()
            error = self.activation.roundtrip(exact, scale, zero_point).sub_(exact).square_()
            by_channel = error.movedim(self.operation.channel_dim, 0).flatten(1).sum(1)
            self.total += torch.dot(by_channel.double(), energies)

    def end_call(self) -> None:
        """Sums are over all calls alike."""
