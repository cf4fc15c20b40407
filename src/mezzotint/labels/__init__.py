"""Labels: configurations of a model, drawn at random, and their measured quality."""

from mezzotint.labels.change import ConfigurationChange
from mezzotint.labels.configuration import Configuration
from mezzotint.labels.header import LabelHeader
from mezzotint.labels.labels import Labels
from mezzotint.labels.metrics import (
    FrechetDistance,
    ImageLabel,
    PairedFeatures,
    UserFunction,
    label_metric,
)
from mezzotint.labels.sampler import PUBLISHED_FORMATS, StoredSizes, check_count, sampled

__all__ = [
    "PUBLISHED_FORMATS",
    "Configuration",
    "ConfigurationChange",
    "FrechetDistance",
    "ImageLabel",
    "LabelHeader",
    "Labels",
    "PairedFeatures",
    "StoredSizes",
    "UserFunction",
    "check_count",
    "label_metric",
    "sampled",
]
