"""The folder of a bank, written layer by layer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import nn

from mezzotint._progress import track
from mezzotint._resuming import digest, resumable_folder
from mezzotint._tensor_digests import digests_of, file_digests
from mezzotint._tensor_files import write_tensors
from mezzotint.bank.candidates import encoded_candidates
from mezzotint.bank.digests import moments_digest, weight_digest
from mezzotint.bank.index import VERSION, BankedLayer, BankIndex
from mezzotint.bank.weight_nodes import common_structures
from mezzotint.errors import BankError, CheckpointError
from mezzotint.plan import Choice, Encoding, Plan
from mezzotint.runtime import Calibration, LayerToEncode, check_plan
from mezzotint.runtime.pack import check_calibration, check_layer, naming


def layer_file(layer: str) -> str:
    """Name of the file of a layer's candidates."""
    return f"{quote(layer, safe='')}.safetensors"


@dataclass(frozen=True, eq=False)
class BankJob:
    """All that decides what a bank holds.

    Attributes:
        denoiser: floating.
        candidates: layer → its choices, of the same structures; input formats are left out.
        encoding: how weights are rounded.
        calibration: what the structures and the rounding need.

    Raises:
        BankError: a layer has no quantized candidate, or of several structures; or biases are to
            be corrected, which is for who packs.
        PlanError: a layer is unknown, or cannot take a candidate; it is named.
        FormatError: what the rounding needs to know of inputs is lacking; the layer is named.
    """

    denoiser: nn.Module
    candidates: Mapping[str, Sequence[Choice]]
    encoding: Encoding
    calibration: Calibration

    def __post_init__(self) -> None:
        if self.encoding.trained or self.encoding.bias_correction:
            raise BankError(
                f"encoding {self.encoding}: a bank holds weights that are rounded here, without "
                "correction of biases; correct them where a plan is packed"
            )
        if not self.candidates:
            raise BankError("candidates: there are none; give those of one layer at least")
        plain = {
            name: tuple(dict.fromkeys(choice.with_floating_input for choice in choices))
            for name, choices in self.candidates.items()
        }
        for name, choices in plain.items():
            common_structures(name, choices)
        object.__setattr__(self, "candidates", plain)
        check_plan(self.denoiser, self.plan)
        for name, choices in plain.items():
            layer = self.denoiser.get_submodule(name)
            for choice in choices:
                check_layer(name, layer, choice)
            check_calibration(name, layer, self.plan, self.calibration)

    @property
    def plan(self) -> Plan:
        """Layer → its first candidate."""
        choices = {name: each[0] for name, each in self.candidates.items()}
        return Plan(choices, encoding=self.encoding)

    @cached_property
    def inputs(self) -> str | None:
        """Digest of the moments that the rounding knows; None where it looks at none."""
        if not self.encoding.needs_grams:
            return None
        known = self.calibration.moments
        return moments_digest({name: known[name] for name in self.candidates})

    @cached_property
    def digests(self) -> dict[str, str]:
        """Layer → digest of its floating weight."""
        modules = ((name, self.denoiser.get_submodule(name)) for name in self.candidates)
        return {name: weight_digest(each.get_parameter("weight")) for name, each in modules}

    @property
    def formats(self) -> dict[str, list[str]]:
        """Layer → weight formats of its candidates."""
        return {name: [each.weight for each in some] for name, some in self.candidates.items()}

    @property
    def name(self) -> str:
        """Equal for equal jobs only."""
        job = {
            "version": VERSION,
            "plan": self.plan.to_dict(),
            "formats": self.formats,
            "inputs": self.inputs,
            "weights": self.digests,
        }
        return digest(job)

    def check(self, index: BankIndex, folder: Path) -> None:
        """Refuse a bank that this job would not have made.

        Raises:
            BankError: naming what differs, and the layer.
        """
        expected = {name: sorted(each) for name, each in self.formats.items()}
        found = {
            name: sorted({fmt for node in layer.nodes.values() for fmt in node.candidates})
            for name, layer in index.layers.items()
        }
        what = None
        if expected.keys() != found.keys():
            odd = sorted(expected.keys() ^ found.keys())[0]
            what = f"other layers, such as {odd}"
        elif digests := [n for n, each in self.digests.items() if index.layers[n].digest != each]:
            what = f"other weights, such as those of layer {digests[0]}"
        elif index.plan.encoding != self.encoding:
            what = f"weights that were rounded otherwise ({index.plan.encoding})"
        elif index.inputs != self.inputs:
            what = "weights that were rounded after other calls of the denoiser"
        elif odd_formats := [n for n, each in expected.items() if found[n] != each]:
            what = f"other formats of layer {odd_formats[0]}: {', '.join(found[odd_formats[0]])}"
        elif any(self.plan[n].structures != index.plan[n].structures for n in expected):
            what = "layers of other structures"
        if what is not None:
            raise BankError(f"{folder}: is a bank of {what}; name another folder, or delete it")


def write_bank(folder: Path, job: BankJob) -> None:
    """Write all candidates, a layer at a time: the folder is complete or absent.

    After a kill, layers that are finished are not encoded again.

    Raises:
        FormatError: a weight holds NaN or infinity; the layer is named.
        BankError: something cannot be written.
        UsageError: another process is at the same.
    """
    with resumable_folder(folder, job.name, error=BankError, pieces="layers") as temporary:
        for leftover in temporary.glob(".*.safetensors.*"):  # of a kill, while it was written
            leftover.unlink()
        names = track(job.candidates, "Encoding layers", len(job.candidates))
        layers = {name: _banked(temporary / layer_file(name), name, job) for name in names}
        BankIndex(job.plan, job.inputs, layers).save(temporary / BankIndex.FILE)


_ENTRY = "layer"
"""Key of a layer's entry of the index among the metadata of its file."""


def _banked(path: Path, name: str, job: BankJob) -> BankedLayer:
    """Encode a layer, unless its file is there."""
    known = finished_layer(path)
    if known is not None:
        return known
    choices = job.candidates[name]
    layer = job.denoiser.get_submodule(name)
    asked = LayerToEncode(name, layer, choices[0], job.encoding, job.calibration)
    with naming(name):
        entry, tensors = encoded_candidates(asked, choices)
    entry = entry.model_copy(update={"sha256": digests_of(tensors, path)})
    write_tensors(path, tensors, {_ENTRY: entry.model_dump_json()})
    return entry


def finished_layer(path: Path) -> BankedLayer | None:
    """A layer whose file is complete, and still what was written; else None."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            found = BankedLayer.model_validate_json((file.metadata() or {}).get(_ENTRY, ""))
        return found if file_digests(path) == found.sha256 else None
    except (SafetensorError, OSError, ValidationError, json.JSONDecodeError, CheckpointError):
        return None  # a disk that lost its last writes
