"""The default recipe: what every candidate costs, and the best that a budget allows."""

from mezzotint.recipes.auto.candidates import candidate_formats
from mezzotint.recipes.auto.options import Auto
from mezzotint.recipes.auto.recipe import auto, found_plan, studied_plan
from mezzotint.recipes.auto.several import BudgetedPlan, plans_of

__all__ = [
    "Auto",
    "BudgetedPlan",
    "auto",
    "candidate_formats",
    "found_plan",
    "plans_of",
    "studied_plan",
]
