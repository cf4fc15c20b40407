"""Changes: a model with one layer's weight, one layer's input, or a whole plan quantized."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn
from typing_extensions import override

from mezzotint.errors import FormatError, PlanError
from mezzotint.measuring.rounded_input import RoundedInput
from mezzotint.plan import FULL, Choice, Encoding, Plan
from mezzotint.runtime import (
    Calibration,
    TimestepReader,
    check_input_ranges,
    own_tensors,
    pack_layer,
    packed_copy,
    reading_timesteps,
    replace_layer,
    shape_of,
)
from mezzotint.runtime.layer_tensors import check_calibrated


class Change(ABC):
    """A pure value that says what of a floating model is quantized.

    Attributes:
        can_ruin: whether NaN or infinite outputs are a result like any other. Where they are not,
            one layer alone has caused them, and measuring ends with its name.
    """

    can_ruin: ClassVar[bool] = False

    @property
    @abstractmethod
    def name(self) -> str:
        """Part of a journal's key: equal for equal changes, different for different ones."""

    @property
    def layer(self) -> str | None:
        """The one layer that is changed: what runs before it runs as in the floating model."""
        return None

    @property
    def static(self) -> bool:
        """True where some input has a static range: figures then depend on how that was found."""
        return False

    @abstractmethod
    def applied(
        self, denoiser: nn.Module, calibration: Calibration
    ) -> AbstractContextManager[nn.Module]:
        """The changed denoiser, for a while; the given one is as before at the end.

        Args:
            denoiser: the floating one, which may itself be changed meanwhile.
            calibration: static ranges and structures' tensors.
        """


@dataclass(frozen=True)
class Unchanged(Change):
    """The floating model itself: what a metric finds is the noise floor of the measurement."""

    @property
    @override
    def name(self) -> str:
        return "nothing changed"

    @override
    def applied(
        self, denoiser: nn.Module, calibration: Calibration
    ) -> AbstractContextManager[nn.Module]:
        return nullcontext(denoiser)


@dataclass(frozen=True)
class _OneLayer(Change):
    """A change of a single layer.

    Attributes:
        target: dotted name of the layer.
        choice: formats and structures.
    """

    target: str
    choice: Choice

    @property
    @override
    def layer(self) -> str:
        return self.target

    @property
    @override
    def static(self) -> bool:
        return self.choice.static


@dataclass(frozen=True)
class LayerChange(_OneLayer):
    """One layer takes a choice, weight and input; all others stay floating.

    The layer is replaced by the packed one, so that what is measured is what will run.

    Attributes:
        target: dotted name of the layer.
        choice: weight and activation format, structures.
        encoding: how the weight is rounded.
    """

    encoding: Encoding = field(default_factory=Encoding)

    @property
    @override
    def name(self) -> str:
        choice = self.choice
        rounded = _encoding_name(self.encoding) if choice.quantized else ""
        structures = _structures_name(choice)
        others = json.dumps(dict(choice.part_formats)) if choice.part_formats else ""
        parts = (self.target, choice.weight, others, choice.activation, structures, rounded)
        return " | ".join(part for part in parts if part)

    def __str__(self) -> str:
        return f"layer {self.target} at {self.choice}"

    @override
    @contextmanager
    def applied(self, denoiser: nn.Module, calibration: Calibration) -> Iterator[nn.Module]:
        """The denoiser with the packed layer in place.

        Raises:
            FormatError: the layer's weight holds NaN, or `calibration` lacks a range or a
                structure's tensor; the layer is named.
            PlanError: the layer is not a Linear or Conv2d, or cannot take the choice.
        """
        layer = denoiser.get_submodule(self.target)
        if not self.choice.quantized:
            yield denoiser
            return
        # Norms stay as they are, and may serve other layers, too.
        plan = Plan({self.target: self.choice.alone}, encoding=self.encoding)
        packed = pack_layer(self.target, layer, plan, calibration)
        replace_layer(denoiser, self.target, packed)
        try:
            with reading_timesteps(denoiser):
                yield denoiser
        finally:
            replace_layer(denoiser, self.target, layer)


@dataclass(frozen=True)
class InputChange(_OneLayer):
    """One layer's input is rounded as its packed layer would; its weight stays floating.

    What no quantizer sees of it, such as constant tokens, is left as it is.

    Attributes:
        target: dotted name of the layer.
        choice: whose activation format and structures count; the weight format does not.
        clip: of `Encoding`, which the calibrated range is of, where the input has a static one.
    """

    clip: str = FULL

    @property
    @override
    def name(self) -> str:
        clip = f"clipped at {self.clip}" if self.static and self.clip != FULL else ""
        parts = (self.target, "float", self.choice.activation, clip, _structures_name(self.choice))
        return " | ".join(part for part in parts if part)

    def __str__(self) -> str:
        return f"layer {self.target} with its input at {self.choice.activation}"

    @override
    @contextmanager
    def applied(self, denoiser: nn.Module, calibration: Calibration) -> Iterator[nn.Module]:
        """The denoiser, with a hook on the layer.

        Raises:
            FormatError: `calibration` lacks a range or a structure's tensor; the layer is
                named.
            PlanError: the layer is not a Linear or Conv2d, or cannot take the choice.
        """
        layer = denoiser.get_submodule(self.target)
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            kind = type(layer).__name__
            raise PlanError(f"layer {self.target} is a {kind}, not a Linear or Conv2d")
        calibration = calibration.under({self.target: self.choice})
        ranges = calibration.input_ranges.get(self.target, ())
        known = calibration.tensors.get(self.target, {})
        structures = self.choice.structures
        try:
            check_input_ranges(self.choice, ranges)
            if self.choice.timed:
                check_calibrated(self.choice, shape_of(layer), known)
            own = own_tensors(structures, layer.weight.detach(), shape_of(layer), known)
        except FormatError as cause:
            raise FormatError(f"layer {self.target}: {cause}") from cause
        with ExitStack() as stack:
            reader = None
            if self.choice.timed:
                reader = stack.enter_context(TimestepReader.reading(denoiser))
            rounding = RoundedInput(self.choice, ranges, own, reader)
            stack.callback(layer.register_forward_pre_hook(rounding, with_kwargs=True).remove)
            yield denoiser


@dataclass(frozen=True)
class PlanChange(Change):
    """A whole plan, on a packed copy of the denoiser; weights that stay floating are shared.

    Attributes:
        plan: what every layer takes.
    """

    plan: Plan

    can_ruin: ClassVar[bool] = True

    @property
    @override
    def name(self) -> str:
        layers = {
            name: [choice.to_dict(), _encoding_name(self.plan.encoding_of(name))]
            for name, choice in self.plan.choices.items()
        }
        attention = self.plan.simulated_attention
        said: object = layers if attention is None else [layers, attention.to_dict()]
        return f"plan {hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]}"

    @property
    @override
    def static(self) -> bool:
        return any(choice.static for choice in self.plan.choices.values())

    def __str__(self) -> str:
        return self.name

    @override
    def applied(
        self, denoiser: nn.Module, calibration: Calibration
    ) -> AbstractContextManager[nn.Module]:
        """The packed copy.

        Raises:
            PlanError, FormatError: as `packed_copy`.
        """
        return nullcontext(packed_copy(denoiser, self.plan, calibration))


def _structures_name(choice: Choice) -> str:
    """Equal for equal structures only: labels, which are for people, may leave fields out."""
    fields = [structure.to_dict() for structure in choice.structures]
    return json.dumps(fields) if fields else ""


def _encoding_name(encoding: Encoding) -> str:
    """Equal for equal encodings only: numbers of an unnamed search are written out."""
    fields = encoding.to_dict()
    return ", ".join(
        value if isinstance(value, str) else json.dumps(value) for value in fields.values()
    )
