"""Metrics: how far a changed model is from the floating one, and their registry."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal, TypeAlias, TypeVar, get_args

from torch import Tensor

from mezzotint._plugins import Registry
from mezzotint.errors import UsageError

Figures: TypeAlias = Mapping[str, float]
"""Name → value of one measurement, JSON numbers; infinite where the model is ruined."""

Pair: TypeAlias = tuple[Tensor, Tensor]
"""A tensor of the floating model, and the changed model's, of the same shape."""

Sight: TypeAlias = Literal["outputs", "images"]
"""Part of the model that a metric compares."""


class Metric(ABC):
    """Comparison of a changed model with the floating one: a frozen dataclass, a pure value.

    Attributes:
        kind: its name in the registry.
        bounds: lowest and highest value of each figure that it has.
        sees: `outputs` of the denoiser, floating [n, ...], one pair per recorded call; or
            `images`, float32 [n, 3, h, w] in [0, 1], one pair per batch of prompts.
    """

    kind: ClassVar[str]
    sees: ClassVar[Sight]
    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {}

    @property
    def name(self) -> str:
        """Part of a journal's key: the kind, and whatever else figures depend on."""
        return self.kind

    @property
    def prompts(self) -> int | None:
        """Number of prompts whose images are compared, the first ones; None for all."""
        return None

    def check_available(self) -> None:  # noqa: B027  (most metrics need nothing more)
        """Raise, before anything is measured, where this environment lacks what it computes with.

        Raises:
            MezzotintError: naming what is lacking.
        """

    def check_images(self, images: Tensor) -> None:  # noqa: B027  (most metrics take any)
        """Raise, before anything is changed, where these images cannot be compared.

        Args:
            images: of the floating model, float32 [n, 3, h, w] in [0, 1].

        Raises:
            MezzotintError: naming what is wrong.
        """

    @abstractmethod
    def figures(self, pairs: Iterable[Pair]) -> dict[str, float]:
        """Compare all pairs, which are computed one by one as this asks for them."""

    def limits(self, name: str) -> tuple[float, float] | None:
        """Lowest and highest value of a figure; None for one that this metric does not have.

        A metric that gives no `bounds` may have any.
        """
        return self.bounds.get(name) if self.bounds else (-math.inf, math.inf)

    def fault(self, figures: Mapping[str, object]) -> str | None:
        """Reason why stored figures are none of this metric's; None where they are."""
        for name in self.bounds:
            if name not in figures:
                return f"{name} is missing"
        for name, value in figures.items():
            limits = self.limits(name)
            if limits is None:
                return f"{name} is no figure of {self.name}"
            low, high = limits
            if isinstance(value, bool) or not isinstance(value, int | float):
                return f"{name} is {value!r}; expected a number"
            if value != math.inf and not low <= value <= high:
                return f"{name} is {value}; expected {low:g} to {high:g}"
        return None

    @abstractmethod
    def loss(self, figures: Figures) -> float:
        """Quality lost, at least 0: near enough additive over layers, for an allocation."""

    def standard_error(self, figures: Figures) -> float | None:
        """Standard error of the loss; None where the figures do not tell it."""
        return None


_METRICS: Registry[type[Metric]] = Registry("metrics", "metric")

M = TypeVar("M", bound=type[Metric])


def register_metric(metric: M) -> M:
    """Class decorator: make a metric known under its kind. It can be made without arguments.

    Raises:
        UsageError: it sees neither outputs nor images, or there is one of that kind.
    """
    sees = getattr(metric, "sees", None)
    if sees not in get_args(Sight):
        raise UsageError(f"metric {metric.kind!r}: sees {sees!r}; it is one of: outputs, images")
    _METRICS.add(metric.kind, metric, metric)
    return metric


def chosen_metric(metric: str | Metric) -> Metric:
    """A metric itself, or the registered one of that kind at its defaults.

    Raises:
        UsageError: there is none; the message lists them.
    """
    if isinstance(metric, Metric):
        return metric
    return metric_named(metric)


def metric_named(kind: str) -> Metric:
    """The registered metric of that kind, at its defaults.

    Raises:
        UsageError: there is none; the message lists them.
    """
    return _METRICS.named(kind)()
