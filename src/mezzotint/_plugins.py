"""Extension points: named things of a kind, this package's own and those of other packages.

Modules register what they add when they are imported. Those of this package are named below; a
package of somebody else's names its modules in the entry points of a group such as
`mezzotint.formats`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Generic, Literal, TypeVar

from mezzotint.errors import MezzotintError, PluginError, UsageError

Kind = Literal[
    "formats",
    "roundings",
    "kernels",
    "structures",
    "metrics",
    "predictors",
    "executors",
    "recipes",
    "engines",
]

BUILT_IN: Final[Mapping[Kind, str]] = {
    "formats": "mezzotint.formats",
    "roundings": "mezzotint.rounding",
    "kernels": "mezzotint.runtime",
    "structures": "mezzotint.runtime.structures",
    "metrics": "mezzotint.measuring.metrics",
    "predictors": "mezzotint.predictors",
    "executors": "mezzotint.measuring",
    "recipes": "mezzotint.recipes",
    "engines": "mezzotint.engines",
}
"""The package whose import registers all that is built in of a kind.

The one place that names packages below it: plans name structures, which are built on plans.
"""

T = TypeVar("T")

_loaded: set[Kind] = set()


class Registry(Generic[T]):
    """Things of one kind by their names, in the order in which they are asked.

    A name belongs to who registers it first; the same definition may be registered again, as when
    a notebook's cell runs twice.

    Attributes:
        items: what is registered so far, by name.
    """

    items: dict[str, T]

    def __init__(
        self,
        kind: Kind,
        noun: str,
        error: type[MezzotintError] = UsageError,
        *,
        reserved: tuple[str, ...] = (),
    ) -> None:
        """Empty.

        Args:
            kind: the group of entry points.
            noun: one such thing, in messages.
            error: raised by `named`.
            reserved: names that users may write, and that nothing can be registered under.
        """
        self.items = {}
        self._kind = kind
        self._noun = noun
        self._error = error
        self._reserved = reserved
        self._sources: dict[str, str] = {}

    def add(self, name: str, item: T, source: Any, *, first: bool = False) -> None:
        """Register `item` after all others, or before them.

        Args:
            name: a new one.
            item: what `named` returns.
            source: the class or function that defines it, named in messages.
            first: whether it is asked before the others.

        Raises:
            UsageError: the name is taken or reserved.
        """
        described = f"{source.__module__}.{getattr(source, '__qualname__', source)}"
        if name in self._reserved:
            raise UsageError(f"{described}: no {self._noun} can be named {name!r}; rename it")
        if name in self.items and self._sources[name] != described:
            raise UsageError(
                f"{described}: {name!r} is the {self._noun} {self._sources[name]}; rename yours"
            )
        self._sources[name] = described
        if first:
            self.items = {name: item} | self.items | {name: item}
        else:
            self.items[name] = item

    def named(self, name: str) -> T:
        """The thing of that name; only an unknown one makes other modules be imported.

        Raises:
            MezzotintError: of the registry's own kind: there is none; the message lists them.
            PluginError: as `load_plugins`.
        """
        if name not in self.items:
            import_module(BUILT_IN[self._kind])
        if name not in self.items:
            load_plugins(self._kind)
        if name not in self.items:
            known = ", ".join(sorted({*self._reserved, *self.items}))
            raise self._error(f"unknown {self._noun} {name!r}; there are: {known}")
        return self.items[name]

    def all(self) -> tuple[T, ...]:
        """All things of this kind, in order.

        Raises:
            PluginError: as `load_plugins`.
        """
        import_module(BUILT_IN[self._kind])
        load_plugins(self._kind)
        return tuple(self.items.values())


def load_plugins(kind: Kind) -> None:
    """Import what other packages add of a kind.

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
