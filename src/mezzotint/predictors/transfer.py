"""Transfer between models: what choices do to layers of one role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from mezzotint.errors import PredictorError
from mezzotint.models import Role, WeightGraph
from mezzotint.predictors.dataset import Dataset, FloatArray, choosing, chosen


@dataclass(frozen=True)
class RoleEffects:
    """Mean effect of each format on layers of each role: what one model tells of another.

    Attributes:
        table: role → format → mean change of the prediction.
    """

    table: Mapping[Role, Mapping[str, float]]

    @classmethod
    def of(cls, effects: FloatArray, graph: WeightGraph, formats: tuple[str, ...]) -> Self:
        """Averages over the layers of each role.

        Args:
            effects: float64 [weight nodes, formats], change of a prediction when one layer takes
                one format, or scores of its choices.
            graph: of the model that was learned.
            formats: their names.
        """
        roles = np.array([str(node.role) for node in choosing(graph)])
        return cls(
            {
                Role(role): dict(zip(formats, effects[roles == role].mean(0).tolist(), strict=True))
                for role in dict.fromkeys(roles.tolist())
            }
        )

    def scores(self, dataset: Dataset) -> FloatArray:
        """Sum of the effects of the choices of another model's configurations: float64 [n].

        Layers of roles that the first model lacks count by the mean of all roles.

        Raises:
            PredictorError: the other model has a format whose effects are unknown.
        """
        known = set.intersection(*(set(each) for each in self.table.values()))
        missing = sorted(set(dataset.formats) - known)
        if missing:
            raise PredictorError(f"effects of {missing[0]} are unknown; label the same formats")
        mean = {
            name: float(np.mean([each[name] for each in self.table.values()])) for name in known
        }
        rows = [self.table.get(node.role, mean) for node in dataset.nodes]
        effects = np.array([[row[name] for name in dataset.formats] for row in rows])
        found: FloatArray = chosen(effects, dataset.configurations).sum(1)
        return found
