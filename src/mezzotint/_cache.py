"""The folder for what is worth keeping between runs."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "MEZZOTINT_CACHE"
"""Environment variable that names the folder."""


def cache_folder() -> Path:
    """The folder that `MEZZOTINT_CACHE` names, or else `mezzotint` in the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else _user_caches() / "mezzotint"


def _user_caches() -> Path:
    """The user's cache folder; a place that takes no files where the user has no home."""
    named = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(named) if named else Path.home() / ".cache"
    except RuntimeError:
        return Path(os.devnull)
