"""Weight formats of the parts of a layer that differ from the layer's own."""

from __future__ import annotations

from collections.abc import Sequence

from mezzotint.errors import FormatError
from mezzotint.formats import FLOAT, parse_weight_format
from mezzotint.plan.structure import Structure

PartFormats = tuple[tuple[str, str], ...]
"""Pairs of a part's name and its weight format."""


def checked_part_formats(
    weight: str, structures: Sequence[Structure], part_formats: PartFormats
) -> PartFormats:
    """The same formats in the order of the parts, without those that change nothing.

    Args:
        weight: format of the layer, which the first part of each structure has.
        structures: of the layer, outermost first.
        part_formats: as they were given.

    Raises:
        FormatError: a format is unknown or `float`, or no structure has such a part.
    """
    given = _as_mapping(part_formats)
    # Parts of an inner structure may lie in one of an outer's that has a format of its own.
    kept: list[tuple[str, str]] = []
    for structure in structures:
        named = [(name, given.pop(name)) for name in structure.part_names[1:] if name in given]
        kept += named if kept else [each for each in named if each[1] != weight]
    if given:
        others = [name for each in structures for name in each.part_names[1:]]
        known = f"expected one of {', '.join(others)}" if others else "leave part_formats out"
        raise FormatError(
            f"part_formats names {', '.join(given)}, which is no further part of the layer's "
            f"structures: {known}; a structure's first part has the layer's own weight format"
        )
    return tuple(kept)


def _as_mapping(part_formats: PartFormats) -> dict[str, str]:
    if not isinstance(part_formats, tuple) or not all(
        isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(each, str) for each in pair)
        for pair in part_formats
    ):
        raise FormatError(
            f"part_formats is {part_formats!r}; expected pairs such as "
            '(("second", "int3/channel"),)'
        )
    given = dict(part_formats)
    if len(given) != len(part_formats):
        raise FormatError(f"part_formats names a part twice: {part_formats!r}; keep one of them")
    for name, weight in given.items():
        if parse_weight_format(weight) is None:
            raise FormatError(
                f"part_formats: {name} is {FLOAT!r}, but the parts of a layer are quantized all or "
                "none; give it a format such as 'int8/channel'"
            )
    return given


def formats_within(structures: Sequence[Structure], part_formats: PartFormats) -> PartFormats:
    """The formats of those parts that these structures have."""
    names = {name for each in structures for name in each.part_names[1:]}
    return tuple(pair for pair in part_formats if pair[0] in names)
