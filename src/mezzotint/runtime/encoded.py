"""Weights that were encoded once, kept on disk for all that packs or measures them again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mezzotint.errors import FormatError, UsageError
from mezzotint.plan import Choice, Encoding, LayerShape, Tensors
from mezzotint.rounding import InputMoments
from mezzotint.runtime.bias_correction import bias_shift
from mezzotint.runtime.composition import join_weights, own_tensors, part_weights
from mezzotint.runtime.encode import encoded_part
from mezzotint.runtime.layer_tensors import quantizers
from mezzotint.runtime.lazy_weight import dense
from mezzotint.runtime.packed import PartCalibration
from mezzotint.runtime.structured import shape_of


class EncodingValues(Protocol):
    """Calibrated values that decide how a weight is encoded; a `Calibration` has them."""

    @property
    def tensors(self) -> Mapping[str, Tensors]:
        """Layer → what its structures have calibrated."""

    @property
    def moments(self) -> Mapping[str, tuple[InputMoments, ...]]:
        """Layer → moments of the input of each of its parts."""


@dataclass(frozen=True, eq=False)
class LayerToEncode:
    """A floating layer, and all that decides how its weight is stored.

    Attributes:
        name: of the layer.
        layer: floating.
        choice: quantized; its activation format makes no difference.
        encoding: how the weight is rounded; not `trained`.
        calibration: checked, see `check_calibration`.
    """

    name: str
    layer: nn.Module
    choice: Choice
    encoding: Encoding
    calibration: EncodingValues

    @property
    def key(self) -> str:
        """Equal for what is stored in the same way, of one model and one calibration."""
        structures = [each.to_dict() for each in self.choice.with_floating_input.alone.structures]
        formats = [each.weight for each in self.choice.of_quantizers]
        return json.dumps([self.name, formats, structures, self.rounded.to_dict()])

    @property
    def rounded(self) -> Encoding:
        """The encoding, without what makes no difference to codes: scales of inputs, and bias."""
        return dataclasses.replace(self.encoding, clip=Encoding.clip, bias_correction=False)

    @cached_property
    def weight(self) -> Tensor:
        """The floating weight; one that stays on disk is read once."""
        weight: Tensor = dense(self.layer.get_parameter("weight").detach())
        return weight

    @property
    def shape(self) -> LayerShape:
        """Shape of the whole layer."""
        return shape_of(self.layer)

    @property
    def own(self) -> Tensors:
        """All tensors of its structures, stored and derived."""
        known = self.calibration.tensors.get(self.name, {})
        return own_tensors(self.choice.structures, self.weight, self.shape, known)

    def encoded(self) -> list[dict[str, Tensor]]:
        """The stored tensors of each quantizer's weight.

        Raises:
            FormatError: there is nothing to encode, the weight holds NaN or infinity, or moments
                are of another layer.
        """
        if not self.choice.quantized or self.encoding.trained:
            raise FormatError(
                f"layer {self.name}: there is nothing to encode in {self.choice}, {self.encoding}"
            )
        weights = part_weights(self.weight, self.choice.structures, self.shape, self.own)
        moments = self.calibration.moments.get(self.name) or (None,) * len(weights)
        formats = self.choice.weight_formats
        return [
            encoded_part(weight_format, each, self.encoding, PartCalibration(moments=seen))
            for weight_format, each, seen in zip(formats, weights, moments, strict=True)
        ]

    def decoded(self, parts: Sequence[Tensors]) -> list[Tensor]:
        """The dequantized weight of each quantizer, of its stored tensors."""
        shapes = [shape.weight for _, shape in quantizers(self.choice.structures, self.shape)]
        return [
            weight_format.decode(part, shape)
            for weight_format, part, shape in zip(
                self.choice.weight_formats, parts, shapes, strict=True
            )
        ]


class EncodedWeights:
    """Stored tensors of a floating model's weights, encoded where they are first asked for.

    They are kept in memory-mapped temporary files without a name, one for each layer, weight
    format, structures and encoding; the activation format makes no difference. Their space goes
    with this object, or with the process, however that ends. All is of one model and one
    calibration: whoever has another needs another one.
    """

    def __init__(self, place: Path | None = None) -> None:
        """Empty.

        Args:
            place: folder in which files are made; by default the system's temporary one.
        """
        self._place = place
        self._stored: dict[str, dict[str, Tensor]] = {}
        self._shifts: dict[str, Tensor] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # Files without a name are of this process: another one encodes for itself.
        return EncodedWeights, (self._place,)

    def holds(self, asked: LayerToEncode) -> bool:
        """Return whether the weight is encoded already, so that nothing of inputs is needed."""
        return asked.key in self._stored

    @torch.no_grad()
    def parts(self, asked: LayerToEncode) -> tuple[Tensors, ...]:
        """The stored tensors of each quantizer's weight, by the names of the format's layout.

        Raises:
            FormatError: the weight holds NaN or infinity, or moments are of another layer.
        """
        key = asked.key
        if key not in self._stored:
            whole = {
                f"{index}.{each}": tensor.contiguous()
                for index, part in enumerate(asked.encoded())
                for each, tensor in part.items()
            }
            self._stored[key] = self._on_disk(whole)
        device = asked.layer.get_parameter("weight").device
        found: list[dict[str, Tensor]] = [{} for _ in range(asked.choice.parts)]
        for dotted, tensor in self._stored[key].items():
            index, _, each = dotted.partition(".")
            found[int(index)][each] = tensor.to(device)
        return tuple(found)

    @torch.no_grad()
    def weight(self, asked: LayerToEncode) -> Tensor:
        """The dequantized weight, of the layer's shape, float32. See `parts`."""
        decoded = asked.decoded(self.parts(asked))
        return join_weights(decoded, asked.choice.structures, asked.shape, asked.own)

    @torch.no_grad()
    def bias_shift(self, asked: LayerToEncode) -> Tensor | None:
        """Addition to the bias by its correction, float32 [out]; None where there is none."""
        if not asked.encoding.bias_correction or asked.layer.bias is None:
            return None
        key = asked.key
        if key not in self._shifts:
            self._shifts[key] = bias_shift(
                asked.weight,
                asked.decoded(self.parts(asked)),
                asked.calibration.moments[asked.name],
                asked.choice.structures,
                asked.shape,
                asked.own,
            )
        return self._shifts[key]

    def _on_disk(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same tensors, mapped from a file whose name is gone."""
        try:
            with TemporaryDirectory(
                prefix="mezzotint-encoded-", dir=self._place, ignore_cleanup_errors=True
            ) as made:
                file = Path(made, "weights.safetensors")
                save_file(tensors, file)
                return load_file(file)
        except (OSError, SafetensorError) as cause:
            raise UsageError(
                f"{self._place or 'the temporary folder'}: encoded weights cannot be written there "
                f"({cause}); make room, or name another folder in TMPDIR"
            ) from cause
