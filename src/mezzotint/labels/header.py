"""The header of a labels folder: everything that its labels depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from mezzotint._files import JsonFile, validated
from mezzotint._journal import differing
from mezzotint.errors import LabelError, MezzotintError, UsageError
from mezzotint.plan.sampling import SamplingModel

VERSION = 1

HEADER_FILE = "labels.json"
JOURNAL_FILE = "labels.jsonl"
GRAPH_FILE = "graph.json"
BANK_FOLDER = "bank"


class _HeaderModel(BaseModel):
    model_config = ConfigDict(extra="forbid")
    version: Literal[1]
    model: str
    weights: str
    metric: str
    images: PositiveInt | None
    sampling: SamplingModel | None
    formats: tuple[str, ...] = Field(min_length=1)
    encoding: dict[str, Any]
    bos: bool = False
    torch: str
    originals: str | None
    calls: str


@dataclass(frozen=True)
class LabelHeader(JsonFile):
    """All that labels depend on, beside the configurations.

    Attributes:
        model: as the user named it; another name for the same weights makes no difference.
        weights: digest of the denoiser.
        metric: by name.
        images: number of images that it compares; None where it sees outputs.
        sampling: prompts, seed and steps of the images, or of the calls; JSON values.
        formats: that configurations choose from.
        encoding: how weights are rounded; JSON values.
        bos: whether constant first tokens are kept out of the quantizers.
        torch: its version.
        originals: digest of the floating model's images; None where there are none.
        calls: digest of the recorded calls, which the metric or the rounding has seen.
    """

    error: ClassVar[type[MezzotintError]] = LabelError

    model: str
    weights: str
    metric: str
    images: int | None
    sampling: Mapping[str, Any] | None
    formats: tuple[str, ...]
    encoding: Mapping[str, Any]
    bos: bool
    torch: str
    originals: str | None
    calls: str

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` reads them back."""
        value = self._values()
        if not self.bos:
            del value["bos"]  # journals of labels that were made before there was a choice go on
        return {"version": VERSION} | value

    @classmethod
    def from_dict(cls, value: Any, source: str = "labels") -> LabelHeader:
        """Validate and build.

        Raises:
            LabelError: naming `source`, the field at fault and what was expected.
        """
        model = validated(_HeaderModel, value, source, LabelError)
        try:
            sampling = None if model.sampling is None else model.sampling.value()
        except UsageError as cause:
            raise LabelError(f"{source}: field sampling: {cause}") from cause
        plain = model.model_dump(mode="json", exclude={"version"})
        written = None if sampling is None else sampling.to_dict()
        return cls(**plain | {"formats": model.formats, "sampling": written})

    def check(self, wanted: LabelHeader, folder: object) -> None:
        """Refuse labels of something else than is wanted.

        Raises:
            LabelError: naming the folder, and what differs.
        """
        found, expected = (
            {key: value for key, value in each._values().items() if key != "model"}
            for each in (self, wanted)
        )
        # The order is that of the fields: digests, which follow from the others, come last.
        key = differing(expected, found)
        if key is None:
            return
        meaning = _MEANINGS[key].format(then=_short(found[key]), now=_short(expected[key]))
        raise LabelError(f"{folder}: holds labels of {meaning}; name another folder")

    def _values(self) -> dict[str, Any]:
        return asdict(self) | {"formats": list(self.formats)}


_MEANINGS = {
    "weights": "another model",
    "metric": "another metric (then {then}, now {now})",
    "images": "another number of images (then {then}, now {now})",
    "sampling": "other prompts, seeds or steps",
    "calls": "other calls of the denoiser",
    "originals": "other images of the floating model",
    "formats": "other formats (then {then}, now {now})",
    "encoding": "another rounding (then {then}, now {now})",
    "bos": "layers with another treatment of first tokens (bos then {then}, now {now})",
    "torch": "another version of torch (then {then}, now {now})",
}


def _short(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return str(value.get("rounding"))
    return str(value)
