"""All candidates of all layers in one folder, from which layers are packed without encoding."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary
from typing_extensions import override

from mezzotint._files import is_taken
from mezzotint.bank.building import BankJob, layer_file, write_bank
from mezzotint.bank.candidates import stored_name
from mezzotint.bank.digests import weight_digest
from mezzotint.bank.index import BankedWeight, BankIndex, Candidate
from mezzotint.bank.switched import Switched
from mezzotint.bank.weight_nodes import layer_choice, quantizer_formats
from mezzotint.errors import BankError, first_line
from mezzotint.formats import FLOAT, TensorSpec, parse_weight_format
from mezzotint.plan import Choice, Encoding, LayerShape, Plan, Tensors
from mezzotint.runtime import Calibration, EncodedWeights, LayerToEncode, quantizers


class Bank(EncodedWeights):
    """A folder of layers in all their stored forms, written once and memory-mapped.

    It serves wherever `EncodedWeights` does: a plan of its candidates is packed without encoding
    anything. What it does not hold is encoded where it is asked for, as ever. Pickles name the
    folder, and hold none of it; where there is no such folder, weights are encoded anew.

    Attributes:
        folder: of the bank; one safetensors file for each layer, and `bank.json`.
    """

    def __init__(self, folder: Path, index: BankIndex) -> None:
        super().__init__()
        self.folder = folder
        self._index = index
        self._seen: MutableMapping[Tensor, int] = WeakIdKeyDictionary()

    @classmethod
    def build(
        cls,
        folder: str | Path,
        denoiser: nn.Module,
        candidates: Mapping[str, Sequence[Choice]],
        encoding: Encoding | None = None,
        calibration: Calibration | None = None,
    ) -> Bank:
        """Encode all candidates, one layer at a time; a finished bank of the same is opened.

        The folder is complete or absent. After a kill, what is finished is not encoded again.

        Args:
            folder: where to.
            denoiser: floating.
            candidates: layer → its choices, of the same structures; input formats are left out.
            encoding: how weights are rounded.
            calibration: what the structures and the rounding need.

        Raises:
            BankError: something else stands there, such as a bank of other weights; candidates are
                missing; or nothing can be written.
            PlanError: a layer is unknown, or cannot take a candidate; it is named.
            FormatError: a weight holds NaN, or something is not calibrated; the layer is named.
        """
        folder = Path(folder)
        job = BankJob(denoiser, candidates, encoding or Encoding(), calibration or Calibration())
        if (folder / BankIndex.FILE).is_file():
            found = cls.open(folder)
            job.check(found._index, folder)
            return found
        if is_taken(folder):
            raise BankError(f"{folder}: holds something else than a bank; name another folder")
        write_bank(folder, job)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: str | Path) -> Bank:
        """A finished bank.

        Raises:
            BankError: it is missing, incomplete or damaged.
        """
        folder = Path(folder)
        if not (folder / BankIndex.FILE).is_file():
            raise BankError(f"{folder}: holds no bank of quantized layers; build one there")
        index = BankIndex.load(folder / BankIndex.FILE)
        for name in index.layers:
            if not (folder / layer_file(name)).is_file():
                raise BankError(
                    f"{folder}: {layer_file(name)} is missing; delete the folder, and build anew"
                )
        return cls(folder, index)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.folder.absolute(),)

    @property
    def digest(self) -> str:
        """A hash of the floating weights of all layers, with their names."""
        return self._index.digest

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of all weights, see `node_keys`, in the order in which layers were given."""
        return tuple(self._index.nodes)

    @property
    def formats(self) -> tuple[str, ...]:
        """All weight formats of candidates, in the order in which they were given."""
        nodes = self._index.nodes.values()
        return tuple(dict.fromkeys(name for node in nodes for name in node.candidates))

    @property
    def encoding(self) -> Encoding:
        """The encoding that all weights were rounded by."""
        return self._index.plan.encoding

    @property
    def rounding(self) -> str:
        """Name of the rounding: `nearest`, `feedback` or another."""
        return self.encoding.rounding

    @property
    def inputs(self) -> str | None:
        """Digest of the moments of inputs that the rounding knew; None where it knew none."""
        return self._index.inputs

    def weights(self, key: str) -> int:
        """Number of weights behind a key.

        Raises:
            BankError: there is no such key.
        """
        return self._node(key).weights

    def stored_bytes(self, key: str, weight_format: str) -> int:
        """Bytes of a weight in that format: of all its stored tensors.

        Raises:
            BankError: there is no such key, or it has no such candidate.
        """
        return self._candidate(key, weight_format).bytes

    def error(self, key: str, weight_format: str) -> float:
        """Mean of |w - ŵ|^2.4 per weight in that format, computed in float64.

        Raises:
            BankError: there is no such key, or it has no such candidate.
        """
        return self._candidate(key, weight_format).error

    def plan(self, configuration: Mapping[str, str], *, activation: str = FLOAT) -> Plan:
        """The plan of a configuration, which packs without encoding where this bank is asked.

        Args:
            configuration: key of every weight → format of one of its candidates, or `float`.
            activation: format of the inputs of all layers whose weights are quantized.

        Raises:
            BankError: a key is missing or unknown, or it has no such candidate.
        """
        unknown = [key for key in configuration if key not in self._index.nodes]
        if unknown:
            raise BankError(
                f"configuration: {self.folder} has no weight {unknown[0]}; leave it out"
            )
        choices: dict[str, Choice] = {}
        for name, layer in self._index.layers.items():
            formats = {key: _named(configuration, key) for key in layer.nodes}
            for key, each in formats.items():
                if each != FLOAT:
                    self._candidate(key, each)
            choices[name] = layer_choice(formats, self._index.plan[name].structures, activation)
        return Plan(choices, encoding=self.encoding)

    def switched(
        self,
        denoiser: nn.Module,
        *,
        activation: str = FLOAT,
        calibration: Calibration | None = None,
    ) -> Switched:
        """A copy of the denoiser whose layers take one candidate after another.

        Args:
            denoiser: floating, of the weights that the bank is of.
            activation: format of the inputs of all layers.
            calibration: static ranges and tensors of structures, where layers have any.

        Raises:
            BankError: the bank is of other weights; a layer is named.
        """
        self.check(denoiser)
        known = replace(calibration or Calibration(), encoded=self)
        return Switched(denoiser, known, lambda each: self.plan(each, activation=activation))

    def check(self, denoiser: nn.Module) -> None:
        """Refuse a denoiser of other weights.

        Raises:
            BankError: a layer is unknown, or its weight is another; it is named.
        """
        modules = dict(denoiser.named_modules())
        for name in self._index.layers:
            if not isinstance(modules.get(name), nn.Linear | nn.Conv2d):
                raise BankError(
                    f"{self.folder}: is a bank of another model, with a layer {name} that "
                    f"{type(denoiser).__name__} does not have; build one for this model"
                )
            self._check_weight(name, modules[name])

    @override
    def holds(self, asked: LayerToEncode) -> bool:
        return self._has(asked) or super().holds(asked)

    @override
    @torch.no_grad()
    def parts(self, asked: LayerToEncode) -> tuple[Tensors, ...]:
        """The stored tensors of each quantizer's weight, by the names of the format's layout.

        Raises:
            BankError: the bank is of other weights, or a file is damaged; the layer is named.
            FormatError: as of `EncodedWeights`, where the bank does not hold it.
        """
        if not self._has(asked):
            return super().parts(asked)
        self._check_weight(asked.name, asked.layer)
        shapes = [shape for _, shape in quantizers(asked.choice.structures, asked.shape)]
        nodes = zip(
            self._index.layers[asked.name].nodes,
            quantizer_formats(asked.choice),
            shapes,
            strict=True,
        )
        device, path = asked.weight.device, self.folder / layer_file(asked.name)
        return tuple(
            {name: tensor.to(device) for name, tensor in _read(path, *node).items()}
            for node in nodes
        )

    def _has(self, asked: LayerToEncode) -> bool:
        layer = self._index.layers.get(asked.name)
        if layer is None or asked.rounded != self.encoding:
            return False
        structures = asked.choice.with_floating_input.structures
        if structures != self._index.plan[asked.name].structures:
            return False
        formats = quantizer_formats(asked.choice)
        return all(
            name in node.candidates
            for name, node in zip(formats, layer.nodes.values(), strict=True)
        )

    def _check_weight(self, name: str, layer: nn.Module) -> None:
        weight = layer.get_parameter("weight")
        # Inference tensors count no versions, and cannot be changed outside of inference.
        version = 0 if weight.is_inference() else weight._version
        if self._seen.get(weight) == version:
            return
        if weight_digest(weight) != self._index.layers[name].digest:
            raise BankError(
                f"{self.folder}: is a bank of other weights than those of layer {name}; delete it, "
                "or name another folder"
            )
        self._seen[weight] = version

    def _node(self, key: str) -> BankedWeight:
        if key not in self._index.nodes:
            raise BankError(f"{self.folder}: has no weight {key}")
        return self._index.nodes[key]

    def _candidate(self, key: str, weight_format: str) -> Candidate:
        candidates = self._node(key).candidates
        if weight_format not in candidates:
            raise BankError(
                f"{self.folder}: has no {weight_format} of {key}; there are: "
                f"{', '.join(candidates)}"
            )
        return candidates[weight_format]


def _reopened(folder: Path) -> EncodedWeights:
    """The bank of another process, or of another machine where that can see the folder."""
    return Bank.open(folder) if folder.is_dir() else EncodedWeights()


def _named(configuration: Mapping[str, str], key: str) -> str:
    if key not in configuration:
        raise BankError(f"configuration: says nothing of {key}; give it a format, or 'float'")
    return configuration[key]


def _read(path: Path, key: str, name: str, shape: LayerShape) -> dict[str, Tensor]:
    """The stored tensors of one weight in one format, mapped from the file."""
    weight_format = parse_weight_format(name)
    assert weight_format is not None, "candidates are quantized"
    layout = weight_format.layout(shape.weight)
    try:
        # A file opened once keeps every page ever read of it resident until it is closed.
        with safe_open(path, framework="pt") as file:
            found = {each: file.get_tensor(stored_name(key, name, each)) for each in layout}
    except (SafetensorError, OSError) as cause:
        raise BankError(
            f"{path}: is damaged ({first_line(cause)}); delete the bank, and build it anew"
        ) from cause
    specs = {each: TensorSpec.of(tensor) for each, tensor in found.items()}
    if specs != dict(layout):
        raise BankError(f"{path}: holds other tensors than {name} has; build the bank anew")
    return found
