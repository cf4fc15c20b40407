"""OpenVINO models on disk: written once, mapped into memory whenever they are read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import openvino as ov

from mezzotint._cache import cache_folder
from mezzotint._files import replacing
from mezzotint._folders import replacing_folder
from mezzotint.errors import UsageError

VARIABLE = "MEZZOTINT_OPENVINO_CACHE"
"""Environment variable: the most gigabytes that are kept; 0 keeps nothing."""

_GIGABYTES = 20.0
_GRAPH, _WEIGHTS, _FACTS = "model.xml", "model.bin", "facts.json"


@dataclass(frozen=True)
class Facts:
    """Properties of a model that its graph does not tell.

    Attributes:
        output: name of the type that the denoiser returns, `module:class`.
        scales_group_norms: a group norm is multiplied, for which code is not generated.
    """

    output: str
    scales_group_norms: bool


@dataclass(frozen=True)
class KeptModel:
    """A model's folder, complete. Its graph and weights never change.

    Attributes:
        folder: holds them, and what compiling made of them.
        facts: as they were given.
    """

    folder: Path
    facts: Facts

    @property
    def graph(self) -> Path:
        """File of the graph."""
        return self.folder / _GRAPH

    @property
    def weights(self) -> Path:
        """File of the constants, beside the graph."""
        return self.folder / _WEIGHTS

    def compiled(self, options: Mapping[str, Any]) -> Path:
        """Place of what compiling with these options makes of the graph; it need not exist."""
        named = "-".join(str(options[name]) for name in sorted(options))
        return self.folder / f"{named}.blob"


@dataclass(frozen=True)
class ModelStore:
    """The folder of kept models: one each, by the digest of what it was made from.

    Any number of processes may use it. Models used last longest ago make room for new ones.

    Attributes:
        folder: of the models; need not exist.
        bound: bytes that all of them may take.
    """

    folder: Path
    bound: int

    @classmethod
    def of_user(cls) -> Self | None:
        """The one in the user's cache folder; None where it is switched off.

        Raises:
            UsageError: MEZZOTINT_OPENVINO_CACHE is no number of gigabytes.
        """
        named = os.environ.get(VARIABLE) or str(_GIGABYTES)
        try:
            bound = int(float(named) * 1e9)
        except (ValueError, OverflowError) as cause:
            raise UsageError(
                f"{VARIABLE}: {named!r} is no number of gigabytes; 0 keeps nothing"
            ) from cause
        return cls(cache_folder() / "openvino", bound) if bound > 0 else None

    def find(self, digest: str) -> KeptModel | None:
        """The model of that digest; None where there is none, or a damaged one."""
        folder = self.folder / digest
        try:
            read = json.loads((folder / _FACTS).read_text("utf-8"))
            sizes = read.pop("sizes")
            if any((folder / name).stat().st_size != size for name, size in sizes.items()):
                return None
            found = KeptModel(folder, Facts(**read))
            os.utime(folder / _FACTS)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return found

    def keep(self, digest: str, model: ov.Model, facts: Facts) -> KeptModel | None:
        """Write a model, and remove others where it takes more than the bound.

        None where it could not be written: no room, no right to write, or another process at it.
        """
        if sum(node.get_byte_size() for node in constants(model)) > self.bound:
            return None
        folder = self.folder / digest
        try:
            with replacing_folder(folder) as temporary:
                ov.save_model(model, temporary / _GRAPH, compress_to_fp16=False)
                sizes = {name: (temporary / name).stat().st_size for name in (_GRAPH, _WEIGHTS)}
                written = json.dumps(asdict(facts) | {"sizes": sizes})
                (temporary / _FACTS).write_text(written, "utf-8")
        except (OSError, RuntimeError, UsageError):
            return None
        kept = KeptModel(folder, facts)
        self._make_room(kept)
        return kept

    def keep_compiled(self, kept: KeptModel, place: Path, compiled: bytes) -> None:
        """Write what compiling made of a kept model; without effect where that fails."""
        with suppress(OSError):
            # A folder that another process has just removed is not made again.
            if kept.graph.exists():
                with replacing(place) as temporary:
                    temporary.write_bytes(compiled)
                self._make_room(kept)

    def _make_room(self, newest: KeptModel) -> None:
        others = []
        total = _size(newest.folder)
        with suppress(OSError):
            for facts in self.folder.glob(f"*/{_FACTS}"):
                if facts.parent != newest.folder:
                    others.append((facts.stat().st_mtime, facts))
                    total += _size(facts.parent)
        for _, facts in sorted(others):
            if total <= self.bound:
                break
            total -= _size(facts.parent)
            # Without its facts nobody begins to read it; who has mapped its files keeps them.
            with suppress(OSError):
                facts.unlink()
            shutil.rmtree(facts.parent, ignore_errors=True)


def constants(model: ov.Model) -> Iterator[Any]:
    """The constants of a graph."""
    return (node for node in model.get_ops() if node.get_type_name() == "Constant")


def _size(folder: Path) -> int:
    total = 0
    with suppress(OSError):
        for path in folder.iterdir():
            total += path.stat().st_size
    return total
