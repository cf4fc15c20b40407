"""Names of the built-in recipes, for editors and type checkers."""

from __future__ import annotations

from typing import Literal, TypeAlias

RecipeName: TypeAlias = Literal["auto", "mixdq", "mpqdm", "qua2sedimo"]
"""A recipe that comes with the package; those that other packages add are given by their options.
"""
