"""States of a training on disk, complete or absent: safetensors and JSON."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mezzotint import _locks
from mezzotint._files import is_taken, read_json, validated, write_json
from mezzotint._folders import replacing_folder
from mezzotint._journal import differing
from mezzotint.errors import JournalError, UsageError, first_line
from mezzotint.training.position import Position

STATE_FILE, TENSORS_FILE = "training.json", "training.safetensors"


class _StateModel(BaseModel):
    model_config = ConfigDict(extra="forbid")
    identity: dict[str, Any]
    position: Position
    sha256: str


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
        ignored: dotted names of those that it need not share.
    """

    def __init__(
        self,
        folder: Path | None,
        identity: Mapping[str, Any],
        ignored: Collection[str] = (),
    ) -> None:
        """Begin, or go on, in a folder that may be there already.

        Raises:
            UsageError: it holds something else.
        """
        self.folder, self.identity, self.ignored = folder, dict(identity), frozenset(ignored)
        if folder is not None and is_taken(folder) and not (folder / STATE_FILE).is_file():
            raise UsageError(f"{folder}: holds something else than a training; name a new folder")

    @property
    def begun(self) -> bool:
        """True where there is a state in the folder."""
        return self.folder is not None and (self.folder / STATE_FILE).is_file()

    def load(self) -> State | None:
        """The state in the folder; None where there is none.

        Raises:
            JournalError: it is of another training, which is named, or damaged.
        """
        if self.folder is None or not self.begun:
            return None
        path = self.folder / STATE_FILE
        try:
            found = validated(_StateModel, read_json(path, JournalError), path, JournalError)
        except JournalError as cause:
            raise JournalError(f"{cause}; {self._remedy}") from cause
        wanted, known = (
            {name: each for name, each in _flat(identity).items() if name not in self.ignored}
            for identity in (self.identity, found.identity)
        )
        key = differing(wanted, known)
        if key is not None:
            raise JournalError(
                f"{path}: was begun with {key} = {known.get(key)!r}, now it is "
                f"{wanted.get(key)!r}; use the same settings, or another folder"
            )
        tensors = self._tensors(found.sha256)
        outputs = tensors.get("outputs", {})
        return State(
            found.position,
            tensors.get("parameters", {}),
            tensors.get("optimizer", {}),
            tuple(outputs[name] for name in sorted(outputs)),
        )

    def damaged(self, why: object) -> JournalError:
        """The error for tensors that are not those of this training.

        Args:
            why: the fault, in a few words.
        """
        assert self.folder is not None, "nothing was loaded"
        return JournalError(f"{self.folder / TENSORS_FILE}: is damaged ({why}); {self._remedy}")

    @property
    def _remedy(self) -> str:
        return f"delete the folder {self.folder} to train from the start"

    def _tensors(self, sha256: str) -> dict[str, dict[str, Tensor]]:
        """Kind → name → tensor, of a file with that digest."""
        assert self.folder is not None, "nothing is loaded"
        path = self.folder / TENSORS_FILE
        try:
            if _digest(path) != sha256:
                raise self.damaged("its bytes are not those that were written")
            loaded = load_file(path)
        except (OSError, ValueError, SafetensorError) as cause:
            raise self.damaged(first_line(cause)) from cause
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
        record: dict[str, Any]
        record = {"identity": self.identity, "position": asdict(state.position)}
        try:
            with replacing_folder(self.folder) as folder:
                save_file(tensors, folder / TENSORS_FILE)
                record["sha256"] = _digest(folder / TENSORS_FILE)
                write_json(folder / STATE_FILE, record)
        except (OSError, SafetensorError) as cause:
            raise JournalError(
                f"{self.folder}: cannot be written ({first_line(cause)}); the state before it is "
                "kept, from which the same call goes on"
            ) from cause


@contextmanager
def only_here(folder: Path | None) -> Iterator[None]:
    """Keep every other run from training in the same folder meanwhile; None for no folder.

    Raises:
        UsageError: another run is at it.
        JournalError: nothing can be written beside the folder.
    """
    if folder is None:
        yield
        return
    with ExitStack() as held:
        try:
            held.enter_context(_locks.only_here(folder))
        except OSError as cause:
            raise JournalError(f"{folder}: cannot be written ({first_line(cause)})") from cause
        yield


def discard_training(folder: Path) -> None:
    """Delete the states of a training, if there are any.

    Raises:
        UsageError: the folder holds something else, or another run trains there.
    """
    if folder.exists():
        StateFolder(folder, {})
        with only_here(folder):
            shutil.rmtree(folder)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flat(value: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Leaves of nested JSON objects by dotted names, as they are read back."""
    found: dict[str, Any] = {}
    for name, each in value.items():
        if isinstance(each, Mapping):
            found |= _flat(each, f"{path}{name}.")
        else:
            found[f"{path}{name}"] = list(each) if isinstance(each, tuple) else each
    return found
