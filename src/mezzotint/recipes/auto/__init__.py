"""The default recipe: what every candidate costs, and the best that a budget allows."""

from mezzotint.recipes.auto.candidates import candidate_formats
from mezzotint.recipes.auto.options import Auto
from mezzotint.recipes.auto.recipe import auto, found_plan

__all__ = ["Auto", "auto", "candidate_formats", "found_plan"]
