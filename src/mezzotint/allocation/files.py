"""Groups of layers from YAML or JSON files, and the bits chosen for them to such a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from mezzotint._files import replacing, write_json
from mezzotint._patterns import matches
from mezzotint.allocation.bit_program import BitProgram
from mezzotint.allocation.documents import YAML_SUFFIXES, is_json, parse
from mezzotint.allocation.values import exact
from mezzotint.errors import UsageError

_Value = TypeVar("_Value")


def read_program(
    scores: Path,
    sizes: Path,
    bits: Sequence[int],
    *,
    candidates: Sequence[int] | None = None,
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> BitProgram:
    """Read the scores and sizes of the same layers.

    Args:
        scores: The file that `read_scores` reads.
        sizes: The file that `read_sizes` reads.
        bits: The widths that the scores are for.
        candidates: Those among them to choose from; `None` for all.
        only: Patterns of names, of which a layer must match one, if there are any.
        exclude: Patterns of names, of which a layer must match none.

    Raises:
        UsageError: A file is unusable, a layer that the patterns keep is in one file only, a
            pattern names no layer, or the candidates are not among the bits.
    """
    allowed = bits if candidates is None else candidates
    _check_widths(allowed, "candidates" if candidates is not None else "bits")
    if not set(allowed) <= set(bits):
        raise UsageError(
            f"candidates: {_shown(allowed)} are not all among the bits {_shown(bits)}; name fewer"
        )
    by_layer = _selected(read_scores(scores, bits), only, exclude, scores)
    by_size = _selected(read_sizes(sizes), only, exclude, sizes)
    _check_contains(sizes, by_size, scores, by_layer)
    _check_contains(scores, by_layer, sizes, by_size)
    return BitProgram(
        {name: {width: by_bits[width] for width in allowed} for name, by_bits in by_layer.items()},
        by_size,
    )


def read_scores(path: Path, bits: Sequence[int]) -> dict[str, dict[int, float]]:
    """Read layer → scores at each of `bits`, in their order, or layer → {bits: score}.

    Returns:
        Layer → bits → score, in the order of the file and of `bits`.

    Raises:
        UsageError: `bits` are unusable, the file cannot be read, a layer occurs twice, or its
            scores are not one finite number for each of `bits`; names the file and the layer.
    """
    _check_widths(bits, "bits")
    return {
        name: _scores(f"{path}: layer {name!r}", value, bits)
        for name, value in _layers(path, "scores").items()
    }


def read_sizes(path: Path) -> dict[str, float]:
    """Read layer → number of weights, or any measure proportional to it.

    Raises:
        UsageError: The file cannot be read, a layer occurs twice, or its size is not a finite
            number, zero or more; names the file and the layer.
    """
    sizes = {}
    for name, value in _layers(path, "size").items():
        sizes[name] = _number(value, f"{path}: layer {name!r}: its size")
        if sizes[name] < 0:
            raise UsageError(f"{path}: layer {name!r}: its size {value} is negative")
    return sizes


def check_suffix(path: Path) -> None:
    """Refuse a file name that tells no format; raises UsageError."""
    if not is_json(path) and path.suffix.lower() not in YAML_SUFFIXES:
        raise UsageError(f"{path}: is neither .yaml nor .json; name a file that ends in either")


def write_bits(path: Path, bits: Mapping[str, int]) -> None:
    """Write layer → bits as YAML or JSON, by the suffix, complete or not at all.

    Raises:
        UsageError: The suffix is neither.
    """
    check_suffix(path)
    if is_json(path):
        write_json(path, dict(bits))
        return
    with replacing(path) as temporary:
        temporary.write_text(
            yaml.safe_dump(dict(bits), sort_keys=False, allow_unicode=True), "utf-8"
        )


def _selected(
    layers: Mapping[str, _Value], only: Sequence[str], exclude: Sequence[str], path: Path
) -> dict[str, _Value]:
    kept = _named(layers, only, path) if only else set(layers)
    kept -= _named(layers, exclude, path)
    if not kept:
        raise UsageError(f"{path}: the patterns leave no layer; exclude fewer")
    return {name: value for name, value in layers.items() if name in kept}


def _named(layers: Iterable[str], patterns: Sequence[str], path: Path) -> set[str]:
    found = set()
    for pattern in patterns:
        by_pattern = {name for name in layers if matches(name, pattern)}
        if not by_pattern:
            raise UsageError(f"{pattern!r} names no layer of {path}; see the names there")
        found |= by_pattern
    return found


def _check_contains(
    path: Path, layers: Mapping[str, Any], other: Path, others: Mapping[str, Any]
) -> None:
    for name in others:
        if name not in layers:
            raise UsageError(
                f"{path}: lacks layer {name!r}, which is in {other}; add it, or exclude it"
            )


def _check_widths(widths: Sequence[int], what: str) -> None:
    if not widths or min(widths) < 1 or len(set(widths)) < len(widths):
        raise UsageError(
            f"{what}: are {_shown(widths)}; give distinct whole numbers above zero, e.g. 2,4,8"
        )


def _shown(widths: Sequence[int]) -> str:
    return ",".join(map(str, widths)) or "none"


def _layers(path: Path, what: str) -> dict[str, Any]:
    check_suffix(path)
    document = parse(path)
    if not isinstance(document, dict) or not document:
        raise UsageError(f"{path}: holds no layers; expected a mapping of layer to {what}")
    for name in document:
        if not isinstance(name, str):
            raise UsageError(f"{path}: layer {name!r}: is not a name; put it in quotes")
        if not name.isprintable():
            raise UsageError(f"{path}: layer {name!r}: holds characters that cannot be printed")
    return document


def _scores(where: str, value: Any, bits: Sequence[int]) -> dict[int, float]:
    asked = _shown(bits)
    if isinstance(value, dict):
        by_bits = {_width(where, key): score for key, score in value.items()}
        if len(by_bits) < len(value):
            raise UsageError(f"{where}: has two scores at the same bits; keep one")
        for width in by_bits:
            if width not in bits:
                raise UsageError(
                    f"{where}: has a score at {width} bits, which are not among {asked}; "
                    "name them too, or remove it"
                )
        for width in bits:
            if width not in by_bits:
                raise UsageError(f"{where}: has no score at {width} bits; add it")
    elif isinstance(value, list):
        if len(value) != len(bits):
            raise UsageError(
                f"{where}: has {len(value)} scores for {len(bits)} widths; give one for each of "
                f"{asked}, in this order"
            )
        by_bits = dict(zip(bits, value, strict=True))
    else:
        raise UsageError(f"{where}: is {value!r}; give a list of scores, or bits: score")
    return {width: _number(by_bits[width], f"{where}: its score at {width} bits") for width in bits}


def _width(where: str, key: Any) -> int:
    """Bits as a key: JSON has no keys but strings."""
    if isinstance(key, str) and re.fullmatch("[0-9]{1,4}", key):
        return int(key)
    if isinstance(key, int) and not isinstance(key, bool):
        return key
    raise UsageError(f"{where}: {key!r} are no bits; give a whole number")


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool):
        raise UsageError(f"{what}: is {value!r}; give a finite number")
    return float(exact(value, what))
