"""Comparison of the layers that a configuration asks for with the tensors that are stored.

A configuration of a few bytes can ask for more layers than there is time or memory to build.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mezzotint.errors import ModelError

_COUNT = re.compile(r"(?!max_)(.*_)?(layers|blocks|depths?|layers_per_block)")
"""Fields that say of how many layers, or how many groups of layers, a model is made.

Bounds, such as `max_window_layers` of Qwen, exceed the number of layers in small models.
"""


class TensorCounts:
    """Configurations of a folder, and the number of tensors that are stored beside each."""

    def __init__(self) -> None:
        self._configs: dict[Path, Any] = {}
        self._tensors: Counter[Path] = Counter()

    def configured(self, path: Path, config: Any) -> None:
        """Note a configuration."""
        self._configs[path] = config

    def stored(self, path: Path, tensors: int) -> None:
        """Note the number of tensors in a safetensors file."""
        self._tensors[path.parent] += tensors

    def check(self) -> None:
        """Refuse a configuration of more layers than there are tensors: each layer has one or more.

        Raises:
            ModelError: naming the field.
        """
        for path, config in self._configs.items():
            tensors = self._tensors[path.parent]
            for field, count in _counts(config):
                if tensors and count > tensors:
                    raise ModelError(
                        f"{path}: {field}: asks for {count:,} layers, but {tensors:,} tensors are "
                        "stored beside it; restore the file"
                    )


def _counts(config: Any) -> Iterator[tuple[str, int]]:
    """Fields that count layers, at any depth, and their largest number."""
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += value
        if not isinstance(value, dict):
            continue
        for name, each in value.items():
            if _COUNT.fullmatch(name):
                yield from ((name, number) for number in _numbers(each))
            pending.append(each)


def _numbers(value: Any) -> Iterator[int]:
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, list):
            pending += each
        elif isinstance(each, int):
            yield each
