"""All candidates of all layers in one folder, from which layers are packed without encoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from mezzotint._files import is_taken
from mezzotint._tensor_digests import verifying
from mezzotint.bank.building import BankJob, layer_file, write_bank
from mezzotint.bank.contents import BankContents
from mezzotint.bank.index import BankIndex
from mezzotint.bank.same_weights import SameWeights
from mezzotint.bank.stored_forms import stored_form
from mezzotint.bank.switched import Switched
from mezzotint.bank.verify import check_layer_file
from mezzotint.bank.weight_nodes import quantizer_formats
from mezzotint.errors import BankError
from mezzotint.formats import FLOAT
from mezzotint.plan import Choice, Encoding, Tensors
from mezzotint.runtime import Calibration, EncodedWeights, LayerToEncode, quantizers


class Bank(BankContents, EncodedWeights):
    """A folder of layers in all their stored forms, written once and memory-mapped.

    It serves wherever `EncodedWeights` does: a plan of its candidates is packed without encoding
    anything. What it does not hold is encoded where it is asked for, as ever. Pickles name the
    folder, and hold none of it; where there is no such folder, weights are encoded anew.

    Attributes:
        folder: of the bank; one safetensors file for each layer, and `bank.json`.
        index: of what stands there.
    """

    def __init__(self, folder: Path, index: BankIndex) -> None:
        BankContents.__init__(self, folder, index)
        EncodedWeights.__init__(self)
        self._same = SameWeights(folder, index.layers)
        self._verified: set[str] = set()

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
            job.check(found.index, folder)
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
        self._same.check_model(denoiser)

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
        self._same.check_layer(asked.name, asked.layer)
        self._verify(asked.name)
        shapes = [shape for _, shape in quantizers(asked.choice.structures, asked.shape)]
        nodes = zip(
            self.index.layers[asked.name].nodes,
            quantizer_formats(asked.choice),
            shapes,
            strict=True,
        )
        device, path = asked.weight.device, self.folder / layer_file(asked.name)
        return tuple(
            {name: tensor.to(device) for name, tensor in stored_form(path, *node).items()}
            for node in nodes
        )

    def _verify(self, name: str) -> None:
        """Compare the tensors of a layer with their digests, when it is first asked for."""
        if name not in self._verified and verifying():
            check_layer_file(self.folder, name, self.index.layers[name])
            self._verified.add(name)

    def _has(self, asked: LayerToEncode) -> bool:
        layer = self.index.layers.get(asked.name)
        if layer is None or asked.rounded != self.encoding:
            return False
        structures = asked.choice.with_floating_input.structures
        if structures != self.index.plan[asked.name].structures:
            return False
        formats = quantizer_formats(asked.choice)
        return all(
            name in node.candidates
            for name, node in zip(formats, layer.nodes.values(), strict=True)
        )


def _reopened(folder: Path) -> EncodedWeights:
    """The bank of another process, or of another machine where that can see the folder."""
    return Bank.open(folder) if folder.is_dir() else EncodedWeights()
