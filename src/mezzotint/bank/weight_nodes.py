"""Weights that are quantized by themselves: of a whole layer, or of a part of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mezzotint.errors import BankError, FormatError
from mezzotint.formats import FLOAT
from mezzotint.plan import Choice, LayerShape, Structure
from mezzotint.runtime import quantizers


def node_keys(name: str, structures: tuple[Structure, ...], shape: LayerShape) -> tuple[str, ...]:
    """Keys of the weights of a layer, in the order of its quantizers.

    A layer of one quantizer goes by its name; of several, each by the layer's name and the part's:
    `conv/first` and `conv/second`.

    Raises:
        PlanError: such a layer cannot have one of the structures.
    """
    paths = [path for path, _ in quantizers(structures, shape)]
    return (name,) if len(paths) == 1 else tuple(f"{name}/{path}" for path in paths)


def quantizer_formats(choice: Choice) -> tuple[str, ...]:
    """Weight format of every quantizer of a layer, in order."""
    return tuple(each.weight for each in choice.of_quantizers)


def layer_choice(
    formats: Mapping[str, str], structures: tuple[Structure, ...], activation: str = FLOAT
) -> Choice:
    """The choice of a layer whose weights have these formats.

    Args:
        formats: key of each of the layer's weights → format, in the order of its quantizers.
        structures: of the layer.
        activation: format of its input, where the weights are quantized.

    Raises:
        BankError: weights of a layer have formats that do not go together; they are named.
    """
    if {*formats.values()} == {FLOAT}:
        return Choice()
    if FLOAT in formats.values():
        raise BankError(f"{_listed(formats)}: weights of one layer are quantized all or none")
    # Parts are named by the last structure that has several; with one weight nothing is.
    parts = {key.rpartition("/")[2].rpartition(".")[2]: each for key, each in formats.items()}
    first, *rest = parts.items()
    try:
        choice = Choice(first[1], activation, structures, tuple(rest))
    except FormatError as cause:
        raise BankError(f"{_listed(formats)}: {cause}") from cause
    if quantizer_formats(choice) != tuple(formats.values()):
        raise BankError(f"{_listed(formats)}: no choice of a layer says that; give all the same")
    return choice


def _listed(formats: Mapping[str, str]) -> str:
    return " and ".join(f"{key} as {name}" for key, name in formats.items())


def common_structures(name: str, choices: Sequence[Choice]) -> tuple[Structure, ...]:
    """The structures of a layer's candidates, which are the same for all.

    Raises:
        BankError: there is none, one is not quantized, or their structures differ.
    """
    if not choices or not all(choice.quantized for choice in choices):
        raise BankError(f"layer {name}: give quantized candidates, one at least")
    if len({choice.structures for choice in choices}) > 1:
        raise BankError(f"layer {name}: its candidates differ in structures; give all the same")
    return choices[0].structures
