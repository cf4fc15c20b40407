"""States of a training on disk, complete or absent: safetensors and JSON."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mezzotint._files import is_taken, read_json, replacing_folder, validated, write_json
from mezzotint._journal import differing
from mezzotint.errors import JournalError, UsageError, first_line
from mezzotint.training.curve import Point

STATE_FILE, TENSORS_FILE = "training.json", "training.safetensors"


@dataclass(frozen=True)
class Sums:
    """Sums over updates since the last point of the curve, of the figures that a point has."""

    updates: int = 0
    loss: float = 0.0
    feature_loss: float | None = None
    ratio: float | None = None

    def plus(self, loss: float, feature_loss: float | None, ratio: float | None) -> Sums:
        """The sums with one more update."""
        features = self.feature_loss
        if feature_loss is not None:
            features = (features or 0.0) + feature_loss
        return Sums(
            self.updates + 1, self.loss + loss, features, self.ratio if ratio is None else ratio
        )


@dataclass(frozen=True)
class Position:
    """The place that a training has come to.

    Attributes:
        updates: made.
        minutes: that they took.
        trajectory: index of the one under way.
        losses: relative losses of its steps so far.
        start: relative loss of the very first step; None before it.
        first: mean relative loss of the first trajectory; None before its end.
        sums: since the last point of the curve.
        points: of the curve.
    """

    updates: int = 0
    minutes: float = 0.0
    trajectory: int = 0
    losses: tuple[float, ...] = ()
    start: float | None = None
    first: float | None = None
    sums: Sums = Sums()
    points: tuple[Point, ...] = ()


class _StateModel(BaseModel):
    model_config = ConfigDict(extra="forbid")
    identity: dict[str, Any]
    position: Position


@dataclass(frozen=True, eq=False)
class State:
    """All that a training goes on from.

    Attributes:
        position: the place that it has come to.
        parameters: trained, by name.
        optimizer: as the optimizer gives it.
        outputs: that the pipeline was given in the trajectory under way.
    """

    position: Position
    parameters: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    outputs: tuple[Tensor, ...]


class StateFolder:
    """A folder with the last state of one training.

    Attributes:
        folder: of the files; None to keep nothing.
        identity: JSON values that a training which goes on must share: options, model, plan, ….
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, Any]) -> None:
        """Begin, or go on, in a folder that may be there already.

        Raises:
            UsageError: it holds something else.
        """
        self.folder, self.identity = folder, dict(identity)
        if folder is not None and is_taken(folder) and not (folder / STATE_FILE).is_file():
            raise UsageError(f"{folder}: holds something else than a training; name a new folder")

    def load(self) -> State | None:
        """The state in the folder; None where there is none.

        Raises:
            JournalError: it is of another training, which is named, or damaged.
        """
        if self.folder is None or not (self.folder / STATE_FILE).is_file():
            return None
        path = self.folder / STATE_FILE
        try:
            found = validated(_StateModel, read_json(path, JournalError), path, JournalError)
        except JournalError as cause:
            raise JournalError(f"{cause}; delete its folder") from cause
        key = differing(_flat(self.identity), _flat(found.identity))
        if key is not None:
            known, wanted = _flat(found.identity).get(key), _flat(self.identity).get(key)
            raise JournalError(
                f"{path}: was begun with {key} = {known!r}, now it is {wanted!r}; use the same "
                "settings, or another folder"
            )
        tensors = self._tensors(self.folder / TENSORS_FILE)
        outputs = tensors.get("outputs", {})
        return State(
            found.position,
            tensors.get("parameters", {}),
            tensors.get("optimizer", {}),
            tuple(outputs[name] for name in sorted(outputs)),
        )

    def _tensors(self, path: Path) -> dict[str, dict[str, Tensor]]:
        """Kind → name → tensor."""
        try:
            loaded = load_file(path)
        except (OSError, SafetensorError) as cause:
            raise JournalError(f"{path}: is damaged ({cause}); delete its folder") from cause
        found: dict[str, dict[str, Tensor]] = {}
        for key, tensor in loaded.items():
            kind, _, name = key.partition("/")
            found.setdefault(kind, {})[name] = tensor
        return found

    def save(self, state: State) -> None:
        """Write a state in the place of the last one, complete or not at all."""
        if self.folder is None:
            return
        named = {f"parameters/{name}": each for name, each in state.parameters.items()}
        named |= {f"optimizer/{name}": each for name, each in state.optimizer.items()}
        named |= {f"outputs/{index:06}": each for index, each in enumerate(state.outputs)}
        tensors = {name: each.detach().cpu().contiguous() for name, each in named.items()}
        record = {"identity": self.identity, "position": asdict(state.position)}
        try:
            with replacing_folder(self.folder) as folder:
                save_file(tensors, folder / TENSORS_FILE)
                write_json(folder / STATE_FILE, record)
        except (OSError, SafetensorError) as cause:
            raise JournalError(
                f"{self.folder}: cannot be written ({first_line(cause)}); the state before it is "
                "kept, from which the same call goes on"
            ) from cause


def discard_training(folder: Path) -> None:
    """Delete the states of a training, if there are any.

    Raises:
        UsageError: the folder holds something else.
    """
    if folder.exists():
        StateFolder(folder, {})
        shutil.rmtree(folder)


def _flat(value: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Leaves of nested JSON objects by dotted names, as they are read back."""
    found: dict[str, Any] = {}
    for name, each in value.items():
        if isinstance(each, Mapping):
            found |= _flat(each, f"{path}{name}.")
        else:
            found[f"{path}{name}"] = list(each) if isinstance(each, tuple) else each
    return found
