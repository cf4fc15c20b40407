"""Configurations: a format for every weight of a model, as a value and as text."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Iterator, Mapping, Sequence

from typing_extensions import override

from mezzotint.errors import LabelError, UsageError

_DIGITS = string.digits + string.ascii_letters

MOST_FORMATS = len(_DIGITS)
"""Formats that the text of a configuration can tell apart."""


class Configuration(Mapping[str, str]):
    """Key of every weight → weight format. A value: equal ones are the same, in whatever order."""

    def __init__(self, choices: Mapping[str, str]) -> None:
        self._choices = dict(choices)

    @override
    def __getitem__(self, key: str) -> str:
        return self._choices[key]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._choices)

    @override
    def __len__(self) -> int:
        return len(self._choices)

    @override
    def __hash__(self) -> int:
        return hash(frozenset(self._choices.items()))

    def __repr__(self) -> str:
        return f"Configuration({self._choices!r})"

    @property
    def digest(self) -> str:
        """A hash, the same in every process."""
        return hashlib.sha256(json.dumps(sorted(self._choices.items())).encode()).hexdigest()[:16]

    def indices(self, keys: Sequence[str], formats: Sequence[str]) -> tuple[int, ...]:
        """Place of each weight's format among `formats`, in the order of `keys`.

        Raises:
            UsageError: a weight has no format, or one that is none of them; it is named.
        """
        places = {name: index for index, name in enumerate(formats)}
        for key in keys:
            if self._choices.get(key) not in places:
                found = self._choices.get(key, "nothing")
                raise UsageError(f"weight {key}: is {found}; give it one of {', '.join(formats)}")
        return tuple(places[self._choices[key]] for key in keys)

    def text(self, keys: Sequence[str], formats: Sequence[str]) -> str:
        """One character for each weight, in the order of `keys`: the place of its format.

        Raises:
            UsageError: as `indices`, or there are more formats than characters.
        """
        if len(formats) > MOST_FORMATS:
            raise UsageError(f"formats: are {len(formats)}; give {MOST_FORMATS} at most")
        return "".join(_DIGITS[index] for index in self.indices(keys, formats))

    @classmethod
    def of_text(cls, text: str, keys: Sequence[str], formats: Sequence[str]) -> Configuration:
        """The configuration that `text` stands for.

        Raises:
            LabelError: it is of other weights or formats.
        """
        places = [_DIGITS.find(digit) for digit in text]
        if len(places) != len(keys) or not all(0 <= each < len(formats) for each in places):
            raise LabelError(f"{text!r} is no configuration of {len(keys)} weights")
        return cls({key: formats[place] for key, place in zip(keys, places, strict=True)})
