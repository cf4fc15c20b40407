"""The encoding: how a weight gets from its floating values onto the grid of its format."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, StrictBool, StrictFloat, StrictInt, StrictStr

from mezzotint.errors import FormatError
from mezzotint.formats import MINMAX, MSE, RangeSearch
from mezzotint.rounding import needs_moments, order_named, rounding_named

SEARCHES = {"minmax": MINMAX, "mse": MSE}
"""Range searches that have a name, in plans and on the command line."""

FULL, CLIPS = "full", ("full", "p99.9", "p99.99", "mse")
"""The static input range that clips nothing, and all that there are."""

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
        rounding: `nearest`, to the nearest value of the grid; `feedback`, where each column makes
            up for the errors of those before it; another that is registered
            (`mezzotint.rounding`); or `trained`, where training chose the values.
        order: which output channels of a mixed format take the most bits: those of highest
            `kurtosis`, as in MPQ-DM; those of the widest `range`; the last ones, as they are
            `stored`; the first ones, `head-tail`; or any, at `random`, but the same each time.
            Without effect on other formats.
        clip: range of a static input format: `full` for the lowest and highest value, `p99.9` or
            `p99.99` for the middle share of all values, `mse` for the range of least expected
            squared rounding error at the format's width. Without effect on other inputs.
        bias_correction: whether the stored bias takes in the mean output error of the rounded
            weight, E[(W - Ŵ) x]. Without effect on layers that have no bias.

    Raises:
        FormatError: the rounding, the order or the clip is unknown, or trained weights are to be
            corrected.
    """

    search: RangeSearch = MSE
    rounding: str = "nearest"
    order: str = "kurtosis"
    bias_correction: bool = False
    clip: str = FULL

    def __post_init__(self) -> None:
        if not self.trained:
            rounding_named(self.rounding)
        elif self.bias_correction:
            raise FormatError(
                f"bias_correction: rounding {TRAINED!r} leaves nothing to correct; leave it out"
            )
        order_named(self.order)
        if self.clip not in CLIPS:
            raise FormatError(f"clip: there is no {self.clip!r}; use {', '.join(CLIPS)}")

    @property
    def trained(self) -> bool:
        """True if no search and no rounding can make the weights again."""
        return self.rounding == TRAINED

    @property
    def needs_grams(self) -> bool:
        """True if the rounding needs Gram matrices of the layer's inputs."""
        return not self.trained and needs_moments(self.rounding)

    def needs_moments(self, *, bias: bool) -> bool:
        """Return whether anything must be known of the inputs of a layer, with or without bias."""
        return self.needs_grams or (self.bias_correction and bias)

    def to_dict(self, default: Encoding | None = None) -> dict[str, Any]:
        """JSON values; with a `default`, only of the fields that differ from it.

        Without one, all but search and rounding are left out where they are the usual ones.
        """
        fields = self._fields()
        usual: dict[str, Any] = {"order": Encoding.order, "bias_correction": False, "clip": FULL}
        if default is not None:
            usual = default._fields()
        return {name: value for name, value in fields.items() if usual.get(name) != value}

    def _fields(self) -> dict[str, Any]:
        search = _search_json(self.search)
        return {
            "search": search,
            "rounding": self.rounding,
            "order": self.order,
            "bias_correction": self.bias_correction,
            "clip": self.clip,
        }

    def __str__(self) -> str:
        order = "" if self.order == Encoding.order else f", {self.order} order"
        corrected = ", bias corrected" if self.bias_correction else ""
        clipped = "" if self.clip == FULL else f", inputs clipped at {self.clip}"
        return f"{search_text(self.search)}, {self.rounding}{order}{corrected}{clipped}"


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
    order: StrictStr | None = None
    bias_correction: StrictBool | None = None
    clip: StrictStr | None = None

    def value(self, default: Encoding) -> Encoding:
        """The encoding, where `default` fills in.

        Raises:
            FormatError: a search or order has no such name, or a number is out of its domain.
        """
        fields: dict[str, Any] = {}
        if isinstance(self.search, str):
            fields["search"] = search_named(self.search)
        elif self.search is not None:
            fields["search"] = RangeSearch(**self.search.model_dump())
        if self.rounding is not None:
            fields["rounding"] = self.rounding
        if self.order is not None:
            fields["order"] = self.order
        if self.bias_correction is not None:
            fields["bias_correction"] = self.bias_correction
        if self.clip is not None:
            fields["clip"] = self.clip
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
