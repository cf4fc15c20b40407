"""Named ways from a pipeline to a plan."""

from mezzotint.recipes import auto, mixdq
from mezzotint.recipes.auto import Auto
from mezzotint.recipes.job import (
    Job,
    Keeping,
    Outcome,
    Recipe,
    check_latency,
    chosen_recipe,
    recipe_named,
    recipes,
    register_recipe,
)
from mezzotint.recipes.mixdq import MixDQ
from mezzotint.recipes.option_values import OptionHelp, options_help, parse_options
from mezzotint.recipes.study import Study

#: Modules that register a recipe when imported.
BUILT_IN_RECIPES = (auto, mixdq)

__all__ = [
    "BUILT_IN_RECIPES",
    "Auto",
    "Job",
    "Keeping",
    "MixDQ",
    "OptionHelp",
    "Outcome",
    "Recipe",
    "Study",
    "check_latency",
    "chosen_recipe",
    "options_help",
    "parse_options",
    "recipe_named",
    "recipes",
    "register_recipe",
]
