"""Named ways from a pipeline to a plan."""

from mezzotint.recipes import auto, mixdq, mpqdm, qua2sedimo
from mezzotint.recipes.auto import Auto
from mezzotint.recipes.job import (
    Job,
    MeasuringSettings,
    Outcome,
    Recipe,
    RecipeOptions,
    check_floating,
    chosen_recipe,
    ready,
    recipe_named,
    recipes,
    register_recipe,
    run_recipe,
)
from mezzotint.recipes.mixdq import MixDQ
from mezzotint.recipes.mpqdm import MPQDM
from mezzotint.recipes.option_values import OptionHelp, options_help, parse_options
from mezzotint.recipes.qua2sedimo import Qua2SeDiMo
from mezzotint.recipes.recipe_names import RecipeName
from mezzotint.recipes.study import Study

#: Modules that register a recipe when imported.
BUILT_IN_RECIPES = (auto, mixdq, mpqdm, qua2sedimo)

__all__ = [
    "BUILT_IN_RECIPES",
    "MPQDM",
    "Auto",
    "Job",
    "MeasuringSettings",
    "MixDQ",
    "OptionHelp",
    "Outcome",
    "Qua2SeDiMo",
    "Recipe",
    "RecipeName",
    "RecipeOptions",
    "Study",
    "check_floating",
    "chosen_recipe",
    "options_help",
    "parse_options",
    "ready",
    "recipe_named",
    "recipes",
    "register_recipe",
    "run_recipe",
]
