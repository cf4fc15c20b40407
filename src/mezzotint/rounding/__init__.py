"""Roundings: how a weight gets onto its grid. Knows formats only."""

from mezzotint.rounding.fake_quantize import fake_quantize
from mezzotint.rounding.kurtosis import channel_order, kurtosis
from mezzotint.rounding.nearest import nearest
from mezzotint.rounding.roundings import Rounding, register_rounding, rounding_named

__all__ = [
    "Rounding",
    "channel_order",
    "fake_quantize",
    "kurtosis",
    "nearest",
    "register_rounding",
    "rounding_named",
]
