"""Exceptions: layers that MPQ-DM leaves at 8 bits or floating."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mezzotint.formats import FLOAT
from mezzotint.models import Layer, Role
from mezzotint.plan import Choice
from mezzotint.recipes.mpqdm.options import Shortcuts

EIGHT_BITS = {
    Role.TIME_EMBEDDING: "embedding of the timestep: 8 bits, not trained",
    Role.INPUT: "first layer: 8 bits, not trained",
    Role.OUTPUT: "last layer: 8 bits, not trained",
}
"""Role → why its layers have 8 bits. Time projections inside residual blocks are no exception."""

FLOATING = {
    Role.SHORTCUT: "shortcut: stays floating unless shortcuts are quantized",
    Role.DOWNSAMPLE: "down-sampling: stays floating unless shortcuts are quantized",
}
"""Role → why its layers are floating."""


@dataclass(frozen=True)
class Exemption:
    """An exception from the nominal widths.

    Attributes:
        choice: what the layer takes instead.
        reason: for the plan.
    """

    choice: Choice
    reason: str


def exemptions(
    layers: Sequence[Layer], shortcuts: Shortcuts, *, inputs: bool
) -> dict[str, Exemption]:
    """Layer → its exception, for those that have one.

    Where no role tells a denoiser's first or last layer, it is the first or last to be run, but for
    embeddings and shortcuts.

    Args:
        layers: that can be packed, in the order of execution.
        shortcuts: whether they are quantized like other layers.
        inputs: whether inputs are quantized at all.
    """
    wide = Choice("uint8/channel", "uint8/tensor" if inputs else FLOAT)
    reasons = {layer.name: EIGHT_BITS[layer.role] for layer in layers if layer.role in EIGHT_BITS}
    reasons |= _ends(layers)
    found = {name: Exemption(wide, why) for name, why in reasons.items()}
    if shortcuts == "floating":
        found |= {
            layer.name: Exemption(Choice(), FLOATING[layer.role])
            for layer in layers
            if layer.role in FLOATING
        }
    return found


def _ends(layers: Sequence[Layer]) -> dict[str, str]:
    """First and last layer, by execution, of a denoiser whose names do not tell them."""
    roles = {layer.role for layer in layers}
    beside = {Role.TIME_EMBEDDING, Role.TEXT_PROJECTION, *FLOATING}
    inner = [layer.name for layer in layers if layer.role not in beside]
    found: dict[str, str] = {}
    if inner and Role.INPUT not in roles:
        found[inner[0]] = EIGHT_BITS[Role.INPUT]
    if inner and Role.OUTPUT not in roles:
        found[inner[-1]] = EIGHT_BITS[Role.OUTPUT]
    return found
