"""The student: a floating denoiser that computes, for a while, as its packed form will."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from mezzotint.errors import UsageError
from mezzotint.models.patching import Forward, patched
from mezzotint.plan import TRAINED, Plan
from mezzotint.runtime import Calibration, TimestepReader, check_plan
from mezzotint.runtime.pack import check_calibration, naming
from mezzotint.training.floating_values import FloatingValues, biases_and_norms
from mezzotint.training.options import Training
from mezzotint.training.student_layer import StudentLayer


class Student:
    """Trainable parameters of a plan's packed form, beside one copy of the floating weights.

    Within `quantized()` the denoiser computes as its packed form will, differentiably; otherwise
    it is the floating model, bit for bit, with nothing left on it: the teacher.

    Attributes:
        denoiser: floating.
        plan: that it is packed after.
        layers: the quantized layers, by name.
        floating: biases and norms, where they differ from the denoiser's or are trained.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        plan: Plan,
        calibration: Calibration,
        layers: dict[str, StudentLayer],
        floating: FloatingValues,
    ) -> None:
        """Put together what `of` makes."""
        self.denoiser, self.plan, self._start = denoiser, plan, calibration
        self.layers, self.floating = layers, floating
        self._weights: dict[str, tuple[Tensor, ...]] | None = None
        self._values: dict[str, Tensor] = {}
        self._reader: TimestepReader | None = None
        self._on = False

    @classmethod
    def of(
        cls, denoiser: nn.Module, plan: Plan, calibration: Calibration, options: Training
    ) -> Student:
        """The student of any plan, which starts as the model that is packed after it.

        Args:
            denoiser: floating.
            plan: of it.
            calibration: for the plan.
            options: say what is trained.

        Raises:
            PlanError: the plan is of another model.
            FormatError: a weight holds NaN, or something is not calibrated; the layer is named.
            UsageError: there is nothing to train.
        """
        check_plan(denoiser, plan)
        generator = torch.Generator().manual_seed(options.seed)
        layers, fixed = {}, dict(calibration.floating)
        for name in plan.quantized:
            layer = denoiser.get_submodule(name)
            assert isinstance(layer, nn.Linear | nn.Conv2d), "checked"
            check_calibration(name, layer, plan, calibration)
            with naming(name), torch.no_grad():
                made = StudentLayer(name, layer, plan, calibration, options, generator)
            layers[name] = made
            if made.bias is not None:
                fixed[f"{name}.bias"] = made.bias
        names = biases_and_norms(denoiser) if options.train == "scales" else iter(())
        student = cls(denoiser, plan, calibration, layers, FloatingValues(denoiser, fixed, names))
        if not student.parameters():
            raise UsageError(
                "train: the plan leaves nothing to train: no weight or input is of fewer than "
                f"{options.untrained_bits} bits; train='scales' trains scales, biases and norms"
            )
        return student

    def parameters(self) -> dict[str, nn.Parameter]:
        """All that is trained, by names that tell the layer."""
        found = {
            f"{name}.{own}": parameter
            for name, layer in self.layers.items()
            for own, parameter in layer.named_parameters()
            if parameter.requires_grad
        }
        return found | self.floating.learned

    @contextmanager
    def quantized(self, on: bool = True) -> Iterator[nn.Module]:
        """The denoiser as the student, or as the teacher, for a while.

        The weights are rounded anew each time, unless they are held. Where modules are computed
        again in a backward pass, that belongs into such a block as well.
        """
        assert not self._on, "leave the one before entering the other"
        if not on:
            yield self.denoiser
            return
        with ExitStack() as stack:
            self._on = True
            stack.callback(setattr, self, "_on", False)
            if self._weights is None:
                stack.enter_context(self.holding_weights())
            assert self._weights is not None
            if any(layer.choice.steps for layer in self.layers.values()):
                self._reader = stack.enter_context(TimestepReader.reading(self.denoiser))
                stack.callback(setattr, self, "_reader", None)
            weights = self._weights
            forwards: dict[nn.Module, Forward] = {
                layer.layer: partial(self._forward, layer, weights[name])
                for name, layer in self.layers.items()
            }
            stack.enter_context(patched(forwards))
            stack.enter_context(self.floating.standing_in(self._values))
            stack.enter_context(_frozen(self.denoiser))
            yield self.denoiser

    @contextmanager
    def holding_weights(self) -> Iterator[None]:
        """Round all weights once, for all that is computed meanwhile; with gradients, if enabled.

        Parameters must not change meanwhile.
        """
        self._weights = {name: layer.rounded_weights() for name, layer in self.layers.items()}
        self._values = self.floating.values()
        try:
            yield
        finally:
            self._weights, self._values = None, {}

    @property
    def timestep(self) -> Tensor:
        """The timestep of the denoiser's call in progress, float32 [1] or [B]."""
        assert self._reader is not None, "layers that ask for it make one"
        return self._reader.timestep

    def again(self) -> AbstractContextManager[object]:
        """A block, to be run any time, in which the timestep is that of the call in progress now.

        For blocks of the denoiser that are computed again in the backward pass.
        """
        return nullcontext() if self._reader is None else _Again(self, self.timestep)

    def _forward(self, layer: StudentLayer, weights: tuple[Tensor, ...], input: Tensor) -> Tensor:  # noqa: A002
        return layer.output(input, weights, lambda: self.timestep)

    @property
    def trained_plan(self) -> Plan:
        """The plan, which says of trained weights that they are."""
        changed = {
            name: replace(self.plan.encoding_of(name), rounding=TRAINED, bias_correction=False)
            for name, layer in self.layers.items()
            if layer.weight is not None
        }
        return replace(self.plan, encodings=dict(self.plan.encodings) | changed)

    @torch.no_grad()
    def calibration(self) -> Calibration:
        """All that decides the stored bytes of `trained_plan`, as it is trained now."""
        start, layers = self._start, self.layers.items()
        weights = {name: each.grid_values() for name, each in layers}
        ranges = {name: each.input_ranges() for name, each in layers}
        tensors = {n: {**start.tensors.get(n, {}), **each.step_tables()} for n, each in layers}
        return replace(
            start,
            weights={name: values for name, values in weights.items() if values},
            input_ranges=dict(start.input_ranges)
            | {n: found for n, found in ranges.items() if found},
            tensors={name: found for name, found in tensors.items() if found},
            encoded=None,
            floating={
                name: value.detach().clone() for name, value in self.floating.values().items()
            },
        )


@dataclass(eq=False)
class _Again:
    """The timestep of a call for what is computed after it; may be entered any number of times."""

    student: Student
    timestep: Tensor

    def __enter__(self) -> None:
        reader = self.student._reader
        assert reader is not None, "gradients are computed within quantized()"
        self._holding = reader.holding(self.timestep)
        self._holding.__enter__()

    def __exit__(self, *error: object) -> None:
        self._holding.__exit__(None, None, None)


@contextmanager
def _frozen(denoiser: nn.Module) -> Iterator[None]:
    """No parameter of the teacher requires gradients; as before at the end."""
    before = [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
    try:
        for parameter in before:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in before:
            parameter.requires_grad_(True)
