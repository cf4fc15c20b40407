"""MPQ-DM, step by step."""

from mezzotint.recipes.mpqdm.options import MPQDM
from mezzotint.recipes.mpqdm.recipe import mpqdm

__all__ = ["MPQDM", "mpqdm"]
