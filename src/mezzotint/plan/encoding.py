"""The encoding: how a weight gets from its floating values onto the grid of its format."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, StrictFloat, StrictInt, StrictStr

from mezzotint.errors import FormatError
from mezzotint.formats import MINMAX, MSE, RangeSearch
from mezzotint.rounding import rounding_named

SEARCHES = {"minmax": MINMAX, "mse": MSE}
"""Range searches that have a name, in plans and on the command line."""

TRAINED = "trained"
"""Rounding of weights that training has put on their grid."""

ONLY_IN_CHECKPOINT = (
    "its weight stands in the checkpoint that it was trained for, and nowhere else; load that, or "
    "choose another rounding, such as 'nearest'"
)


@dataclass(frozen=True)
class Encoding:
    """Rounding of a layer's weight, in whatever format it has.

    The defaults are those of a plan that says nothing, and of version 1; nobody else has any. The
    dtype of scales is part of the format.

    Attributes:
        search: choice of the clipping ranges; without effect on codebooks.
        rounding: `nearest`, to the nearest value of the grid; another that is registered
            (`mezzotint.rounding`); or `trained`, where training chose the values.

    Raises:
        FormatError: the rounding is unknown.
    """

    search: RangeSearch = MSE
    rounding: str = "nearest"

    def __post_init__(self) -> None:
        if not self.trained:
            rounding_named(self.rounding)

    @property
    def trained(self) -> bool:
        """True if no search and no rounding can make the weights again."""
        return self.rounding == TRAINED

    def to_dict(self, default: Encoding | None = None) -> dict[str, Any]:
        """JSON values; with a `default`, only of the fields that differ from it."""
        fields = {"search": _search_json(self.search), "rounding": self.rounding}
        usual = {} if default is None else default.to_dict()
        return {name: value for name, value in fields.items() if usual.get(name) != value}

    def __str__(self) -> str:
        return f"{search_text(self.search)}, {self.rounding}"


class _SearchModel(BaseModel):
    model_config = ConfigDict(extra="forbid")
    steps: StrictInt
    lowest: StrictInt | StrictFloat = RangeSearch.lowest
    power: StrictInt | StrictFloat = RangeSearch.power


class EncodingModel(BaseModel):
    """An encoding in JSON; a field left out stands as the default has it."""

    model_config = ConfigDict(extra="forbid")
    search: StrictStr | _SearchModel | None = None
    rounding: StrictStr | None = None

    def value(self, default: Encoding) -> Encoding:
        """The encoding, where `default` fills in.

        Raises:
            FormatError: a search has no such name, or a number is out of its domain.
        """
        fields: dict[str, Any] = {}
        if isinstance(self.search, str):
            fields["search"] = search_named(self.search)
        elif self.search is not None:
            fields["search"] = RangeSearch(**self.search.model_dump())
        if self.rounding is not None:
            fields["rounding"] = self.rounding
        return dataclasses.replace(default, **fields)


def search_named(name: str) -> RangeSearch:
    """The range search of that name.

    Raises:
        FormatError: there is none; the message lists them.
    """
    if name not in SEARCHES:
        raise FormatError(f"{name!r} is not a range search; use {' or '.join(SEARCHES)}")
    return SEARCHES[name]


def search_text(search: RangeSearch) -> str:
    """`minmax`, `mse`, or the numbers of another search."""
    found = _search_json(search)
    if isinstance(found, str):
        return found
    return f"{search.steps} steps down to {search.lowest:g} by power {search.power:g}"


def _search_json(search: RangeSearch) -> str | dict[str, Any]:
    named = {value: name for name, value in SEARCHES.items()}
    return named.get(search) or dataclasses.asdict(search)
