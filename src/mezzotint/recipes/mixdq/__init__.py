"""MixDQ, step by step."""

from mezzotint.recipes.mixdq.options import MixDQ
from mezzotint.recipes.mixdq.recipe import mixdq

__all__ = ["MixDQ", "mixdq"]
