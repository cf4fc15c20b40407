"""Extensions by other packages, found through their entry points.

A package names modules of its own in the entry points of a group such as `mezzotint.formats`; a
module registers what it adds when it is imported, as those of this package do.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Literal

from mezzotint.errors import PluginError

Kind = Literal["formats", "kernels", "structures", "metrics", "recipes", "exporters", "engines"]

_loaded: set[Kind] = set()


def load_plugins(kind: Kind) -> None:
    """Import what other packages add of a kind; registries call this before they look something up.

    Done once: later calls return at once, unless an import failed before.

    Raises:
        PluginError: a module cannot be imported; its package and entry point are named.
    """
    if kind in _loaded:
        return
    # First, since a plugin may well look into the registry that it adds to.
    _loaded.add(kind)
    for point in sorted(entry_points(group=f"mezzotint.{kind}"), key=_origin):
        try:
            point.load()
        except Exception as cause:  # whatever a foreign module may raise
            _loaded.discard(kind)
            raise PluginError(
                f"{_origin(point)}: cannot be imported ({type(cause).__name__}: {cause}); update "
                "or uninstall that package"
            ) from cause


def _origin(point: EntryPoint) -> str:
    """The package and the entry point, for people."""
    package = f"{point.dist.name} {point.dist.version}" if point.dist else "a package"
    return f"{package}, entry point {point.group}: {point.name} = {point.value}"
