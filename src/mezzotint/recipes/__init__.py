"""Named ways from a pipeline to a plan."""

from mezzotint.recipes import auto, mixdq
from mezzotint.recipes.auto import AutoOptions
from mezzotint.recipes.base import Job, Outcome, Recipe, recipe_named, recipes, register_recipe
from mezzotint.recipes.mixdq import MixdqOptions
from mezzotint.recipes.options import OptionHelp, options_help, parse_options

#: Modules that register a recipe when imported.
BUILT_IN_RECIPES = (auto, mixdq)

__all__ = [
    "BUILT_IN_RECIPES",
    "AutoOptions",
    "Job",
    "MixdqOptions",
    "OptionHelp",
    "Outcome",
    "Recipe",
    "options_help",
    "parse_options",
    "recipe_named",
    "recipes",
    "register_recipe",
]
