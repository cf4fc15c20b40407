"""MixDQ, step by step."""

from mezzotint.recipes.mixdq.options import MixdqOptions
from mezzotint.recipes.mixdq.recipe import mixdq

__all__ = ["MixdqOptions", "mixdq"]
