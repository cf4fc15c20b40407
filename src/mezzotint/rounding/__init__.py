"""Roundings: how a weight gets onto its grid. Knows formats only."""

from mezzotint.rounding.channel_orders import (
    channel_order,
    in_segments,
    order_named,
    ranking_named,
)
from mezzotint.rounding.fake_quantize import fake_quantize, fake_quantize_input
from mezzotint.rounding.feedback import feedback
from mezzotint.rounding.kurtosis import kurtosis
from mezzotint.rounding.moments import InputMoments
from mezzotint.rounding.nearest import nearest
from mezzotint.rounding.roundings import (
    Rounding,
    needs_moments,
    register_rounding,
    rounding_named,
)

__all__ = [
    "InputMoments",
    "Rounding",
    "channel_order",
    "fake_quantize",
    "fake_quantize_input",
    "feedback",
    "in_segments",
    "kurtosis",
    "nearest",
    "needs_moments",
    "order_named",
    "ranking_named",
    "register_rounding",
    "rounding_named",
]
