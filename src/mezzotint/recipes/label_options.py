"""Options of labels that are to be measured."""

from __future__ import annotations

from dataclasses import dataclass

from mezzotint.errors import UsageError
from mezzotint.formats import QUA2SEDIMO, parse_weight_format
from mezzotint.labels import PUBLISHED_FORMATS, label_metric
from mezzotint.measuring import Metric
from mezzotint.plan import Encoding


@dataclass(frozen=True)
class SampleOptions:
    """Labels to be measured.

    Attributes:
        count: number of configurations, with those that are there already.
        formats: that every weight may take.
        metric: `paired`, `noise`, `fd` or `module:function`, see `label_metric`.
        images: how many it compares; None for its own number. For `noise`, prompts whose calls are
            recorded.
        rounding: `nearest` as published, or `feedback`.
        stratify: spread stored bits evenly, see `sampled`.
        bos: keep the constant first token of text embeddings out of the quantizers, as `auto` does;
            not published.
        seed: of the drawing; without a sampling, image i starts from the noise of seed + i.

    Raises:
        UsageError: a value is out of its domain.
        FormatError: there is no such format, or no such rounding.
    """

    count: int = 300
    formats: tuple[str, ...] = PUBLISHED_FORMATS
    metric: str = "paired"
    images: int | None = None
    rounding: str = "nearest"
    stratify: bool = False
    bos: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("count", 1), ("seed", 0), ("images", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name}: is {value}; give {least} or more")
        if len({*self.formats}) < len(self.formats) or not self.formats:
            raise UsageError(f"formats: are {', '.join(self.formats)}; give different ones")
        for name in self.formats:
            if parse_weight_format(name) is None:
                raise UsageError(f"formats: {name!r} quantizes nothing; leave it out")
        if len(self.formats) == 1 and (self.count > 1 or self.stratify):
            raise UsageError(
                f"formats: is {self.formats[0]} alone, which makes one configuration; give two or "
                "more"
            )
        _ = self.measure, self.encoding

    @property
    def measure(self) -> Metric:
        """The metric.

        Raises:
            UsageError: there is none of that name, or it takes more images.
        """
        return label_metric(self.metric, self.images)

    @property
    def encoding(self) -> Encoding:
        """Rounding of weights, with the search of clipping ranges that was published.

        Raises:
            FormatError: there is no such rounding.
        """
        return Encoding(QUA2SEDIMO, self.rounding)
