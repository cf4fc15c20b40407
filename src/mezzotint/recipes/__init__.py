"""Named ways from a pipeline to a plan."""

from mezzotint.recipes import auto
from mezzotint.recipes.auto import AutoOptions
from mezzotint.recipes.base import Job, Outcome, Recipe, recipe_named, recipes, register_recipe

#: Modules that register a recipe when imported.
BUILT_IN_RECIPES = (auto,)

__all__ = [
    "BUILT_IN_RECIPES",
    "AutoOptions",
    "Job",
    "Outcome",
    "Recipe",
    "recipe_named",
    "recipes",
    "register_recipe",
]
