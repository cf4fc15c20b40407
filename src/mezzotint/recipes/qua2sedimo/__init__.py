"""Qua²SeDiMo, step by step."""

from mezzotint.recipes.qua2sedimo.options import Qua2SeDiMo
from mezzotint.recipes.qua2sedimo.recipe import qua2sedimo

__all__ = ["Qua2SeDiMo", "qua2sedimo"]
