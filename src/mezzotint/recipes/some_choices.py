"""Plan that stands for all candidates of one kind of structures, where formats do not matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mezzotint.plan import Choice, Encoding, Plan


def plan_of_some(choices: Mapping[str, Sequence[Choice]], encoding: Encoding) -> Plan:
    """The plan of one quantized choice of each layer that has any.

    Args:
        choices: layer → its candidates, of the same structures.
        encoding: of all layers.
    """
    quantized = {n: choice for n, each in choices.items() for choice in each if choice.quantized}
    return Plan(quantized, encoding=encoding)
