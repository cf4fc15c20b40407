"""The extension point for layers that do more than one quantizer does."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from pydantic import ConfigDict
from torch import Tensor

from mezzotint.errors import CalibrationError, FormatError
from mezzotint.formats import ActivationFormat, TensorSpec
from mezzotint.plan.layer_shape import LayerShape, Reader

Tensors = Mapping[str, Tensor]
"""A structure's own tensors as they are stored, by their names within the layer."""


class Part(Protocol):
    """A quantized layer that a structure is made of; it adds no bias of its own."""

    def __call__(self, x: Tensor, /, *scales: Tensor | None) -> Tensor:
        """The output for the input `x`.

        Args:
            x: input of the part.
            scales: given by structures that have a `granularity`: scale and zero point of `x`,
                float32 [1] or one for each sample, and the bias to be added, or None.
        """


Parts = Mapping[str, Part]
"""The parts of a structure by name."""

NOW = "now"
"""Key, among the tensors of a `timed` structure, of the timestep of the call in progress."""

KINDS = "kinds"
"""Key, among the tensors of a structure with `known_tokens`, of the kinds of an input's first
tokens; it is lacking where all of them are the known ones."""


class Observer(Protocol):
    """Watches the runs of one floating layer, or of a part of one, for what must be calibrated."""

    def observe(self, x: Tensor, output: Callable[[], Tensor]) -> None:
        """See one run: its input, and its output on request.

        The output has the bias where the structure is its layer's outermost.
        """

    def tensors(self) -> Tensors:
        """The calibrated tensors, as they are stored.

        Raises:
            CalibrationError: what was seen does not allow them; the message says why.
        """


@dataclass(frozen=True)
class Structure(ABC):
    """Base of everything that a layer does beside one quantizer.

    A structure is a value: its dataclass fields are its fields in a plan. It makes a layer of
    parts, which are layers without a bias under the structures that follow in the choice, or
    plain quantized ones where none follows. Everything else it says of a layer's shape, of
    tensors, or of the parts' results.

    A structure stores tensors of its own beside its parts. They are integers, so that casting a
    model leaves them alone (`mezzotint.formats.as_bits`), and under the same names in the layer's
    buffers, in checkpoints and in what calibration finds. Where a method is given `tensors`
    before the layer is packed, asking for one that has yet to be calibrated is a FormatError.
    Calibration may also find some that packing uses up and nothing stores.

    Attributes:
        kind: its key in plans.
        part_names: the parts, in the order of their input ranges.
        calibrated: tensors that calibration finds: of those that are stored, and others.
        same_for_every_prompt: whether those must not depend on the prompt, so that calibration
            shows it prompts of other first words as well.
        same_for_siblings: whether those must be the same for all layers that read the very same
            tensor, so that its observer is told of them.
        left_out_by: option of recipes that leaves it out, such as `bos=false`, or what may stand
            in its place; None where none does.
        granularity: of activation formats whose scales and zero points it stores, such as `step`;
            they are calibrated with the ranges of inputs. None where it stores none.
        since: fields that later versions of plans brought → the first version that has them, and
            what plans of earlier ones mean.
        timed: whether its layer depends on the denoiser's timestep: `forward` then finds that
            among the tensors, as `NOW`, float32 [1] or one for each sample.
    """

    kind: ClassVar[str]
    part_names: ClassVar[tuple[str, ...]]
    calibrated: ClassVar[frozenset[str]] = frozenset()
    same_for_every_prompt: ClassVar[bool] = False
    same_for_siblings: ClassVar[bool] = False
    left_out_by: ClassVar[str | None] = None
    granularity: ClassVar[str | None] = None
    since: ClassVar[Mapping[str, tuple[int, Any]]] = {}
    timed: ClassVar[bool] = False

    #: Settings with which pydantic reads the fields.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    @property
    @abstractmethod
    def label(self) -> str:
        """The structure and its fields for people, such as `split at 320`."""

    @abstractmethod
    def part_shapes(self, layer: LayerShape) -> Mapping[str, LayerShape]:
        """The shape of every part.

        Raises:
            PlanError: such a layer cannot have this structure.
        """

    def refuse(self, inner: Structure) -> str | None:
        """The reason why parts cannot have the structure `inner`, with the remedy; or None."""
        return None

    def refuse_outer(self, outer: Structure) -> str | None:
        """The reason why it cannot stand within `outer`, with the remedy; or None."""
        return None

    @property
    def alone(self) -> Structure:
        """The structure of a layer that stands among floating modules; its codes are the same."""
        return self

    def refuse_input(self, activation: ActivationFormat) -> str | None:
        """The reason why inputs of a format do not go with it, with the remedy; or None."""
        return None

    @property
    def calibrated_steps(self) -> int:
        """Timesteps that it stores scales for; 0 where it stores none for each."""
        return 0

    @property
    def observed(self) -> bool:
        """True if an observer finds calibrated tensors of it."""
        return bool(self.calibrated) and self.granularity is None

    @property
    def known_tokens(self) -> str | None:
        """The tensor of its own that holds first tokens which others were calibrated for; or None.

        It is bfloat16 as int16 bits, [count, features]. The layer compares its input with it, and
        `forward` finds among the tensors, as `KINDS`, which of `mezzotint.runtime.token_check` the
        first tokens are: uint8 [batch, count].
        """
        return None

    def tensors(self, layer: LayerShape) -> Mapping[str, TensorSpec]:
        """Shape and dtype of every tensor that it stores."""
        return {}

    def calibrated_tensors(self, layer: LayerShape) -> Mapping[str, TensorSpec]:
        """Shape and dtype of every tensor that calibration finds."""
        specs = self.tensors(layer)
        return {name: specs[name] for name in sorted(self.calibrated)}

    def check_tensor(self, name: str, tensor: Tensor) -> None:
        """Refuse a stored tensor whose values make no sense.

        Raises:
            FormatError: naming the tensor.
        """
        return

    def derived(self, weight: Tensor, layer: LayerShape, tensors: Tensors) -> Tensors:
        """Its own tensors that follow from the floating weight.

        Args:
            weight: of the layer.
            layer: its shape.
            tensors: those that were calibrated.
        """
        return {}

    def placeholder(self, layer: LayerShape, x: Tensor) -> Tensors:
        """Calibrated tensors that a layer could have, for timing it on its input `x`: zeros."""
        return {name: spec.zeros() for name, spec in self.calibrated_tensors(layer).items()}

    def observer(self, reader: Reader, siblings: Sequence[Reader]) -> Observer:
        """Finds the calibrated tensors of a layer; asked only of those that are `observed`.

        Args:
            reader: the floating layer.
            siblings: all layers of the model that read the very same tensor, `reader` among them,
                whatever a plan says of them; `reader` alone unless `same_for_siblings`.

        Raises:
            CalibrationError: the structure has none.
        """
        raise CalibrationError(f"{self.kind} has nothing that calibration finds")

    @abstractmethod
    def part_weights(
        self, weight: Tensor, layer: LayerShape, tensors: Tensors
    ) -> Mapping[str, Tensor]:
        """The floating weight of every part."""

    @abstractmethod
    def join_weights(
        self, weights: Mapping[str, Tensor], layer: LayerShape, tensors: Tensors
    ) -> Tensor:
        """The weight that a layer without this structure would have, from the parts' own.

        Undoes `part_weights`, up to rounding.
        """

    def join_shifts(self, shifts: Mapping[str, Tensor], layer: LayerShape) -> Tensor:
        """The change of the layer's bias that stands for a change of each part's output.

        Here that of structures which add up what their parts make, and then add the bias.

        Args:
            shifts: part → what would be added to each of its outputs, float32 [out].
            layer: shape of the layer.

        Raises:
            FormatError: the parts have other outputs than the layer.
        """
        shapes = {tuple(shift.shape) for shift in shifts.values()}
        if shapes != {(layer.out_channels,)}:
            raise FormatError(
                f"{self.kind}: its parts have other outputs than the layer, and it does not say "
                "how a bias could make up for their errors; leave out bias_correction"
            )
        return torch.stack(tuple(shifts.values())).sum(0)

    @abstractmethod
    def part_inputs(self, x: Tensor, layer: LayerShape, tensors: Tensors) -> Mapping[str, Tensor]:
        """The input of every part, from the layer's.

        Raises:
            PlanError: the structure does not go with an input of that shape.
        """

    @abstractmethod
    def join_inputs(
        self, x: Tensor, inputs: Mapping[str, Tensor], layer: LayerShape, tensors: Tensors
    ) -> Tensor:
        """The layer's input `x`, but for what its parts see, which is `inputs`.

        Undoes `part_inputs`, up to rounding.
        """

    @abstractmethod
    def forward(
        self, x: Tensor, parts: Parts, layer: LayerShape, tensors: Tensors, bias: Tensor | None
    ) -> Tensor:
        """The layer's output. Traced by compilers; `layer.with_bias` adds the bias."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the kind and the fields."""
        return {"kind": self.kind} | dataclasses.asdict(self)

    def __str__(self) -> str:
        return self.label


def check_count(structure: Structure, field: str, value: object) -> None:
    """Raise FormatError unless a field of a structure counts tokens or channels.

    No model has longer sequences, or layers of more inputs, than 65535.
    """
    if type(value) is not int or not 1 <= value < 2**16:
        raise FormatError(
            f"{structure.kind}: {field} is {value!r}; expected a whole number from 1 to {2**16 - 1}"
        )
