"""AdamW over groups of parameters, each with a rate of its own that falls to 0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import AdamW

from mezzotint.training.options import Rates
from mezzotint.training.student import Student

_STATE = ("step", "exp_avg", "exp_avg_sq")
_SCALE = {"loss.scale": "scale", "loss.growth": "_growth_tracker"}
"""Name in a state → in that of the scaler."""

_LEAST = 1e-3
"""Root mean square below which biases and norms are all alike, such as zeros."""


class Optimizer:
    """AdamW with weight decay on LoRA alone.

    Attributes:
        parameters: all that is trained, by name.
    """

    def __init__(self, student: Student, rates: Rates, scaler: GradScaler | None = None) -> None:
        """Rates at the start of training; each layer's LoRA has that of its own Δ.

        Args:
            student: whose parameters are trained.
            rates: learning rates.
            scaler: of the loss that gradients are of; None where that is as it is.
        """
        self._scaler = scaler
        self.parameters = student.parameters()
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for parameter, rate, decay in _rated(student, rates):
            if parameter.requires_grad:
                groups.setdefault((rate, decay), []).append(parameter)
        self._adam = AdamW(
            [
                {"params": each, "lr": rate, "weight_decay": decay}
                for (rate, decay), each in groups.items()
            ],
            fused=True,
        )
        self._rates = [rate for rate, _ in groups]

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to be differentiated, of which `unscale` divides the gradients."""
        return loss if self._scaler is None else self._scaler.scale(loss)

    def unscale(self) -> None:
        """Make the gradients those of the loss itself."""
        if self._scaler is not None:
            self._scaler.unscale_(self._adam)

    @property
    def may_overflow(self) -> bool:
        """True where infinite gradients may be due to the scale, which then is too large."""
        return self._scaler is not None and self._scaler.get_scale() > 1

    def step(self, progress: float) -> None:
        """Change the parameters after their gradients, which are dropped.

        Where a scaled loss has infinite ones, the scale is halved and nothing else changed.

        Args:
            progress: share of the training that is done, from 0 to 1.
        """
        for group, rate in zip(self._adam.param_groups, self._rates, strict=True):
            group["lr"] = rate * (1 - progress)
        if self._scaler is None:
            self._adam.step()
        else:
            self._scaler.step(self._adam)
            self._scaler.update()
        self._adam.zero_grad()

    def state(self) -> dict[str, Tensor]:
        """The moments and counts of all parameters: `moment.parameter` → tensor; and the scale."""
        found = {
            f"{key}.{name}": value
            for name, parameter in self.parameters.items()
            for key, value in self._adam.state.get(parameter, {}).items()
        }
        if self._scaler is not None:
            known = self._scaler.state_dict()
            found |= {key: torch.tensor(float(known[own])) for key, own in _SCALE.items()}
        return found

    def misfit(self, state: Mapping[str, Tensor]) -> str | None:
        """The first thing in a state that no optimizer of these parameters gives; None for none."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name, parameter in self.parameters.items():
            own = {f"{key}.{name}": tuple(parameter.shape) for key in _STATE}
            own[f"{_STATE[0]}.{name}"] = ()
            if any(key in state for key in own):  # none before there is a gradient
                shapes |= own
        # Another machine may need no scale, or be the first to need one.
        for key in sorted((shapes.keys() | state.keys()) - _SCALE.keys()):
            if key not in state or key not in shapes:
                return f"optimizer/{key} is {'absent' if key in shapes else 'unknown'}"
            if tuple(state[key].shape) != shapes[key]:
                return f"optimizer/{key} is of shape {tuple(state[key].shape)}, not {shapes[key]}"
        return None

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave."""
        for name, parameter in self.parameters.items():
            found = {key: state[f"{key}.{name}"] for key in _STATE if f"{key}.{name}" in state}
            if found:
                # Fused steps take counts on the parameter's device, too.
                self._adam.state[parameter] = {
                    key: value.to(parameter.device, copy=True) for key, value in found.items()
                }
        if self._scaler is not None and _SCALE.keys() <= state.keys():
            known = {own: float(state[key]) for key, own in _SCALE.items()}
            growth = int(known["_growth_tracker"])
            self._scaler.load_state_dict(
                {**self._scaler.state_dict(), **known, "_growth_tracker": growth}
            )


def _rated(student: Student, rates: Rates) -> Iterator[tuple[nn.Parameter, float, float]]:
    """Each parameter with its rate and its weight decay."""
    of_weights = {"log_scale": rates.weight_scale, "zero_point": rates.weight_zero_point}
    of_inputs = {"log_scale": rates.input_scale, "zero_point": rates.input_zero_point}
    for layer in student.layers.values():
        if layer.weight is not None:
            lora = layer.weight.lora is not None
            rate, decay = (rates.lora, rates.decay) if lora else (rates.weights, 0.0)
            for parameter in layer.weight.parameters():
                yield parameter, rate * layer.step, decay
        for name, parameter in layer.grids.named_parameters():
            own = name.rpartition(".")[2]
            yield parameter, of_weights.get(own, rates.weight_scale * _size(parameter)), 0.0
        for name, parameter in layer.inputs.named_parameters():
            yield parameter, of_inputs[name.rpartition(".")[2]], 0.0
    for parameter in student.floating.learned.values():
        yield parameter, rates.floating * _size(parameter), 0.0


def _size(parameter: Tensor) -> float:
    return max(float(parameter.detach().square().mean().sqrt()), _LEAST)
