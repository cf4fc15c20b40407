"""Measuring, layer by layer, what fewer bits cost; journaled and resumable."""

from mezzotint.sensitivity.journal import Journal
from mezzotint.sensitivity.measure import (
    Measurements,
    Score,
    Unit,
    changed_layer,
    check_weights,
    fingerprint,
    measure,
    measure_unit,
    relative_noise,
)

__all__ = [
    "Journal",
    "Measurements",
    "Score",
    "Unit",
    "changed_layer",
    "check_weights",
    "fingerprint",
    "measure",
    "measure_unit",
    "relative_noise",
]
