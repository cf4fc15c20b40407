"""Metrics: how far a changed model is from the floating one, and their registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal, TypeAlias, TypeVar

from torch import Tensor

from mezzotint._plugins import load_plugins
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
        sees: `outputs` of the denoiser, floating [n, ...], one pair per recorded call; or
            `images`, float32 [n, 3, h, w] in [0, 1], one pair per batch of prompts.
    """

    kind: ClassVar[str]
    sees: ClassVar[Sight]

    @property
    def name(self) -> str:
        """Part of a journal's key: the kind, and whatever else figures depend on."""
        return self.kind

    @property
    def prompts(self) -> int | None:
        """Number of prompts whose images are compared, the first ones; None for all."""
        return None

    @abstractmethod
    def figures(self, pairs: Iterable[Pair]) -> dict[str, float]:
        """Compare all pairs, which are computed one by one as this asks for them."""

    @abstractmethod
    def loss(self, figures: Figures) -> float:
        """Quality lost, at least 0: near enough additive over layers, for an allocation."""


_METRICS: dict[str, type[Metric]] = {}

M = TypeVar("M", bound=type[Metric])


def register_metric(metric: M) -> M:
    """Class decorator: make a metric known under its kind. It can be made without arguments."""
    _METRICS[metric.kind] = metric
    return metric


def metric_named(kind: str) -> Metric:
    """The registered metric of that kind, at its defaults.

    Raises:
        UsageError: there is none; the message lists them.
    """
    load_plugins("metrics")
    if kind not in _METRICS:
        known = ", ".join(sorted(_METRICS))
        raise UsageError(f"unknown metric {kind!r}; there are: {known}")
    return _METRICS[kind]()
