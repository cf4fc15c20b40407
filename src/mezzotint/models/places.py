"""Places of modules within a denoiser: stage and block of a U-Net, block of a transformer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import count

from torch import nn

from mezzotint.models.weight_graph import Place

OUTSIDE: Place = (0, 0, 0)

_STAGES = {"down_blocks": 1, "mid_block": 2, "up_blocks": 3}
_STAGE = re.compile(r"(down_blocks|mid_block|up_blocks)(?:\.(.*))?")
# A residual block and the transformers after it are one; a sampler stands between two.
_UNIT = re.compile(r"(?:(\d+)\.)?(?:(down|up)samplers|\w+)\.(\d+)(?:\..*)?")
_TRANSFORMER = re.compile(r".*\btransformer_blocks\.(\d+)\b.*")


def places_of(names: Sequence[str], denoiser: nn.Module) -> tuple[Place, ...]:
    """The place of each module, given by dotted names in order of execution.

    Blocks are numbered in the order in which they first come up. In a U-Net of diffusers, a block
    is one entry of `resnets` with that of `attentions` after it, or a sampler; what a stage's entry
    runs itself, such as joining a skip connection, belongs to the block that is run next.
    """
    numbers: dict[tuple[object, ...], int] = {}
    counts = {stage: count(1) for stage in (0, *_STAGES.values())}

    def number(stage: int, *unit: object) -> int:
        if (stage, *unit) not in numbers:
            numbers[stage, *unit] = next(counts[stage])
        return numbers[stage, *unit]

    def place(name: str) -> Place:
        if found := _STAGE.fullmatch(name):
            stage, inside = _STAGES[found[1]], found[2] or ""
            unit = _UNIT.fullmatch(inside)
            inner = _TRANSFORMER.fullmatch(inside)
            return (
                stage,
                number(stage, *unit.groups()) if unit else 0,
                int(inner[1]) + 1 if inner else 0,
            )
        block = _block(name, denoiser)
        return (number(0, block), 0, 0) if block else OUTSIDE

    places = [place(name) for name in names]
    for index in reversed(range(len(names) - 1)):
        (stage, _, _), later = places[index], places[index + 1]
        if _STAGE.fullmatch(names[index]) and not places[index][1] and later[0] == stage:
            places[index] = later
    return tuple(places)


def _block(name: str, denoiser: nn.Module) -> str | None:
    """The outermost entry of a list of modules that the module is, or stands in."""
    parts = name.split(".")
    for length in range(1, len(parts)):
        head = denoiser.get_submodule(".".join(parts[:length]))
        if isinstance(head, nn.ModuleList):
            return ".".join(parts[: length + 1])
    return None
