"""Weights that were encoded once, kept on disk for all that packs or measures them again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mezzotint.errors import FormatError, UsageError
from mezzotint.plan import Choice, Encoding, Tensors
from mezzotint.rounding import InputMoments
from mezzotint.runtime.bias_correction import bias_shift
from mezzotint.runtime.composition import join_weights, own_tensors, part_weights, quantizers
from mezzotint.runtime.encode import encoded_part
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

    @torch.no_grad()
    def parts(
        self,
        name: str,
        layer: nn.Module,
        choice: Choice,
        encoding: Encoding,
        calibration: EncodingValues,
    ) -> tuple[Tensors, ...]:
        """The stored tensors of each quantizer's weight, by the names of the format's layout.

        Args:
            name: of the layer.
            layer: floating.
            choice: quantized.
            encoding: how the weight is rounded; not `trained`.
            calibration: checked, see `check_calibration`.

        Raises:
            FormatError: the weight holds NaN or infinity, or moments are of another layer.
        """
        key = _key(name, choice, encoding)
        if key not in self._stored:
            encoded = _encoded(name, layer, choice, encoding, calibration)
            whole = {
                f"{index}.{each}": tensor.contiguous()
                for index, part in enumerate(encoded)
                for each, tensor in part.items()
            }
            self._stored[key] = self._on_disk(whole)
        device = layer.get_parameter("weight").device
        found: list[dict[str, Tensor]] = [{} for _ in range(choice.parts)]
        for dotted, tensor in self._stored[key].items():
            index, _, each = dotted.partition(".")
            found[int(index)][each] = tensor.to(device)
        return tuple(found)

    @torch.no_grad()
    def weight(
        self,
        name: str,
        layer: nn.Module,
        choice: Choice,
        encoding: Encoding,
        calibration: EncodingValues,
    ) -> Tensor:
        """The dequantized weight, of the layer's shape, float32. See `parts`."""
        decoded = self._decoded(name, layer, choice, encoding, calibration)
        own = _own(name, layer, choice, calibration)
        return join_weights(decoded, choice.structures, shape_of(layer), own)

    @torch.no_grad()
    def bias_shift(
        self,
        name: str,
        layer: nn.Module,
        choice: Choice,
        encoding: Encoding,
        calibration: EncodingValues,
    ) -> Tensor | None:
        """Addition to the bias by its correction, float32 [out]; None where there is none."""
        if not encoding.bias_correction or layer.bias is None:
            return None
        key = _key(name, choice, encoding)
        if key not in self._shifts:
            self._shifts[key] = bias_shift(
                layer.get_parameter("weight"),
                self._decoded(name, layer, choice, encoding, calibration),
                calibration.moments[name],
                choice.structures,
                shape_of(layer),
                _own(name, layer, choice, calibration),
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

    def _decoded(
        self,
        name: str,
        layer: nn.Module,
        choice: Choice,
        encoding: Encoding,
        calibration: EncodingValues,
    ) -> list[Tensor]:
        """The dequantized weight of each quantizer."""
        weight_format = choice.weight_format
        assert weight_format is not None, "of a quantized layer"
        shapes = [shape.weight for _, shape in quantizers(choice.structures, shape_of(layer))]
        parts = self.parts(name, layer, choice, encoding, calibration)
        return [
            weight_format.decode(part, shape) for part, shape in zip(parts, shapes, strict=True)
        ]


def _key(name: str, choice: Choice, encoding: Encoding) -> str:
    """Equal for what is stored in the same way."""
    structures = [structure.to_dict() for structure in choice.structures]
    # Neither the range of inputs nor the bias makes a difference to the codes.
    rounded = dataclasses.replace(encoding, clip=Encoding.clip, bias_correction=False)
    return json.dumps([name, choice.weight, structures, rounded.to_dict()])


def _own(name: str, layer: nn.Module, choice: Choice, calibration: EncodingValues) -> Tensors:
    known = calibration.tensors.get(name, {})
    weight = layer.get_parameter("weight").detach()
    return own_tensors(choice.structures, weight, shape_of(layer), known)


def _encoded(
    name: str, layer: nn.Module, choice: Choice, encoding: Encoding, calibration: EncodingValues
) -> list[dict[str, Tensor]]:
    weight_format = choice.weight_format
    if weight_format is None or encoding.trained:
        raise FormatError(f"layer {name}: there is nothing to encode in {choice}, {encoding}")
    own = _own(name, layer, choice, calibration)
    weight = layer.get_parameter("weight").detach()
    weights = part_weights(weight, choice.structures, shape_of(layer), own)
    moments = calibration.moments.get(name) or (None,) * len(weights)
    return [
        encoded_part(weight_format, each, encoding, PartCalibration(moments=seen))
        for each, seen in zip(weights, moments, strict=True)
    ]
