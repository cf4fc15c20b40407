"""Names of formats, as they stand in plans: `int4/channel`, `kmeans3/tensor`, `int8/token`, ….

A new weight format registers one parser; plans, checkpoints and the command line then know it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import cast

from mezzotint._plugins import load_plugins
from mezzotint.errors import FormatError
from mezzotint.formats.activation import ActivationFormat, Granularity
from mezzotint.formats.uniform import UniformFormat
from mezzotint.formats.weight_format import WeightFormat

FLOAT = "float"

#: Matches a number in a name: one spelling each, so that equal formats have equal names.
NUMBER = "[1-9][0-9]{0,8}"

Parser = Callable[[str], WeightFormat | None]
_PARSERS: list[Parser] = []


def register_weight_format(parser: Parser) -> Parser:
    """Add a parser: it returns the format of a name, or None where the name is not its own."""
    _PARSERS.append(parser)
    return parser


@register_weight_format
def _uniform(name: str) -> WeightFormat | None:
    pattern = rf"(u?)int({NUMBER})/(tensor|channel(/float32)?|group({NUMBER}))"
    match = re.fullmatch(pattern, name)
    if match is None:
        return None
    unsigned, width, granularity, wide, group = match.groups()
    symmetric = not unsigned
    if group:
        return UniformFormat(int(width), symmetric, "group", int(group))
    if granularity == "tensor":
        return UniformFormat(int(width), symmetric, "tensor")
    return UniformFormat(int(width), symmetric, wide_scale=bool(wide))


def parse_weight_format(name: str) -> WeightFormat | None:
    """The format called `name`; None for `float`.

    Raises:
        FormatError: no registered format has that name, or its numbers are out of their domain.
    """
    if name == FLOAT:
        return None
    for parser in _parsers():
        try:
            found = parser(name)
        except FormatError as cause:
            raise FormatError(f"weight format {name!r}: {cause}") from cause
        if found is not None:
            return found
    raise FormatError(
        f"unknown weight format {name!r}; expected 'float' or a name such as 'int4/channel', "
        "'int4/channel/float32', 'uint3/group64', 'int8/tensor', 'lut3/channel', "
        "'kmeans4/channel', 'kmeans3/tensor' or 'mixed/int2:64,int3:128,int4:64'"
    )


def _parsers() -> Iterator[Parser]:
    """Parsers of this package, then those of others: a name of ours needs no foreign module.

    Nor would one find this package complete: names are parsed while it is being imported.
    """
    known = len(_PARSERS)
    yield from _PARSERS[:known]
    load_plugins("formats")
    yield from _PARSERS[known:]


def parse_activation_format(name: str) -> ActivationFormat | None:
    """The activation format called `name`; None for `float`.

    Raises:
        FormatError: the name is not of the form `int8/token`, `uint8/tensor`, `uint4/step` or
            `uint8/channel/simulated`, or its width is not 2 to 8.
    """
    if name == FLOAT:
        return None
    match = re.fullmatch(rf"(u?)int({NUMBER})/(tensor|step|token|channel/simulated)", name)
    if match is None:
        raise FormatError(
            f"unknown activation format {name!r}; expected 'float', 'int8/token', 'uint8/tensor', "
            "'uint4/step' or 'uint8/channel/simulated'"
        )
    unsigned, width, granularity = match.groups()
    try:
        return ActivationFormat(int(width), not unsigned, cast("Granularity", granularity))
    except FormatError as cause:
        raise FormatError(f"activation format {name!r}: {cause}") from cause
