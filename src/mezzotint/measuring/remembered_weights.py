"""Candidate weights that are kept decoded, as far as memory allows."""

from __future__ import annotations

from torch import Tensor

from mezzotint.measuring.probed_layer import CandidateWeight
from mezzotint.plan import Choice

MEMORY = 2**30
"""Bytes of decoded weights that are kept."""


def remembered(weight_of: CandidateWeight, memory: int = MEMORY) -> CandidateWeight:
    """The same weights, of which those that are asked for first are kept while there is room.

    Every probe asks for all of them in the same order, so that those which were used last are no
    better to keep than others. What finds no room is decoded each time.

    Args:
        weight_of: decodes a weight.
        memory: bytes to keep at the most.
    """
    kept: dict[tuple[str, Choice], tuple[Tensor, Tensor | None]] = {}
    filled = 0

    def weight(name: str, choice: Choice) -> tuple[Tensor, Tensor | None]:
        nonlocal filled
        found = kept.get((name, choice))
        if found is None:
            found = weight_of(name, choice)
            size = sum(each.nbytes for each in found if each is not None)
            if filled + size <= memory:
                kept[name, choice] = found
                filled += size
        return found

    return weight
