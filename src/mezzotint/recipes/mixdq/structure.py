"""Where the model needs more than one quantizer per layer: constant first tokens, joined inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from mezzotint.calibration import constant_outputs
from mezzotint.errors import ModelError
from mezzotint.models import Call, Layer, Role, joined_inputs, text_readers
from mezzotint.plan import Choice
from mezzotint.recipes.mixdq.options import MixdqOptions, Shortcuts

CONSTANT = "the first text token is the same for every prompt; its output is a stored constant"
JOINED = "its input joins two tensors of different ranges; each half has its own quantizers"


@dataclass(frozen=True, eq=False)
class Structure:
    """Layers of more than one quantizer.

    Attributes:
        constants: layer → floating output of its constant first token, [1, out_features].
        splits: layer → input channels of the first half.
        refused: text layer → why its first token cannot be taken for constant.
        notes: what had to be left out altogether, and why.
    """

    constants: Mapping[str, Tensor] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def choice(self, layer: str, weight: str, activation: str) -> Choice:
        """These formats for `layer`, with its structure."""
        return Choice(
            weight,
            activation,
            constant_tokens=1 if layer in self.constants else 0,
            split=self.splits.get(layer, 0),
        )

    def reasons(self) -> dict[str, str]:
        """Layer → what is special about it."""
        refused = {
            name: f"its first token is quantized like the others: {why}"
            for name, why in self.refused.items()
        }
        constant = dict.fromkeys(self.constants, CONSTANT)
        return refused | constant | dict.fromkeys(self.splits, JOINED)


def find_structure(
    denoiser: nn.Module, layers: Sequence[Layer], calls: Sequence[Call], options: MixdqOptions
) -> Structure:
    """Look at the recorded calls for constant first tokens, and at the data flow for joins."""
    notes: list[str] = []
    splits: dict[str, int] = {}
    try:
        splits = split_inputs(denoiser, layers, calls[0], options.shortcuts)
    except ModelError as cause:
        notes.append(f"no input is split: {cause}")
    readers = text_readers(layers) if options.bos else ()
    found = constant_outputs(denoiser, readers, calls)
    if options.bos and not readers:
        notes.append("no constant first token: no layer reads the text")
    if found.refused:
        why = "; ".join(dict.fromkeys(found.refused.values()))
        notes.append(f"no constant first token in {len(found.refused)} layers: {why}")
    return Structure(found.constants, splits, found.refused, tuple(notes))


def split_inputs(
    denoiser: nn.Module, layers: Sequence[Layer], call: Call | None, which: Shortcuts
) -> dict[str, int]:
    """Layer → channels of the first half, of the layers that `which` asks for.

    Raises:
        ModelError: the data flow cannot be followed.
    """
    if which == "none":
        return {}
    wanted = {
        layer.name
        for layer in layers
        if layer.groups == 1 and (layer.role is Role.SHORTCUT or which == "concatenations")
    }
    joins = joined_inputs(denoiser, call)
    return {name: first for name, first in joins.items() if name in wanted}
