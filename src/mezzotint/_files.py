"""Reading and writing files so that they are complete or absent."""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self, TypeVar

from pydantic import BaseModel, ValidationError

from mezzotint._cache import cache_folder
from mezzotint._durable import sync_file, sync_folder
from mezzotint.errors import MezzotintError, UsageError

ModelT = TypeVar("ModelT", bound=BaseModel)

_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")
"""Name of a file that is being written, as `tempfile` makes them."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that replaces it if the block succeeds.

    Content and name are on disk before this returns.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file to write to")
    with making_folders(path.parent):
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(descriptor)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~umask())
            sync_file(temporary)
            temporary.replace(path)
            sync_folder(path.parent)
            note_written(path)
        finally:
            temporary.unlink(missing_ok=True)


_written: list[Path] = []


def note_written(path: Path) -> None:
    """Note that a file or folder is complete, which the user may have asked for.

    What stands in a hidden folder is not yet, and what is kept for later runs is nobody's result.
    """
    hidden = any(part.startswith(".") and part.strip(".") for part in path.parts)
    if not hidden and not path.is_relative_to(cache_folder()):
        _written.append(path)


def forget_written() -> None:
    """Begin anew, as each command does."""
    _written.clear()


def last_written() -> Path | None:
    """The file or folder that was completed last; None for nothing."""
    return _written[-1] if _written else None


@contextmanager
def making_folders(folder: Path) -> Iterator[None]:
    """Make a folder and those around it, and remove what is empty of them afterwards."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # it holds something by now
            for each in made:
                each.rmdir()


def remove_remains(folder: Path) -> None:
    """Remove the temporary files below a folder that `replacing` left when it was killed.

    For whoever alone may write there.
    """
    for path in list(folder.rglob(".*")):
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink()


def at_home(path: str | Path) -> Path:
    """The path with the home folder for a ~ at its beginning.

    Raises:
        UsageError: a user is named who has none, or it is no path at all.
    """
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"{path!r}: is a {type(path).__name__}; name a path, as a str or Path")
    try:
        return Path(path).expanduser()
    except RuntimeError as cause:
        raise UsageError(
            f"{path}: names the home of a user whom nobody knows; name a path"
        ) from cause


def check_no_file(path: Path) -> None:
    """Refuse, with UsageError, a file where a folder is to be."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: is a file; name a folder to write to")


def is_taken(path: Path) -> bool:
    """True if something stands at `path` but for an empty folder."""
    return path.exists() and not (path.is_dir() and not any(path.iterdir()))


def umask() -> int:
    """The user's umask: temporary files are private, what they become should not be."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def header_length(file: BinaryIO) -> int:
    """Bytes of the header of a safetensors file that stands at its beginning; goes up to it."""
    # The file begins with that number, in eight bytes, little-endian.
    return int.from_bytes(file.read(8), "little")


def read_json(path: Path, error: type[MezzotintError]) -> Any:
    """Parse a JSON file; raises `error` naming the file and the line at fault."""
    try:
        return json.loads(path.read_text("utf-8"), object_pairs_hook=distinct)
    except FileNotFoundError as cause:
        raise error(f"{path}: no such file") from cause
    except (OSError, UnicodeDecodeError) as cause:
        raise error(f"{path}: cannot be read ({cause})") from cause
    except json.JSONDecodeError as cause:
        raise error(f"{path}: not valid JSON (line {cause.lineno}: {cause.msg})") from cause
    except RepeatedKeyError as cause:
        raise error(f"{path}: the key {cause} stands twice in one object; keep one") from cause
    except (ValueError, RecursionError) as cause:  # a number too long, or nesting too deep
        raise error(f"{path}: not usable JSON ({cause})") from cause


class RepeatedKeyError(Exception):
    """An object or mapping with one key twice; its text is the key."""


def distinct(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The object of a JSON document's pairs: of equal keys some programs take the first.

    Raises:
        RepeatedKeyError: a key stands twice; it is named.
    """
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise RepeatedKeyError(repr(key))
        found[key] = value
    return found


def check_storable(value: Any, source: object, error: type[MezzotintError]) -> None:
    """Refuse what JSON can be read as, but not be written with: raises `error` with the field.

    That is half of a surrogate pair in a text, and numbers that are infinite or NaN.
    """
    pending: list[tuple[str, Any]] = [("", value)]
    while pending:
        where, each = pending.pop()
        place = f"{source}: field {where or 'top level'}"
        if isinstance(each, str) and _has_lone_surrogate(each):
            raise error(f"{place}: {each!a} holds half of a surrogate pair; write the character")
        if isinstance(each, float) and not math.isfinite(each):
            raise error(f"{place}: is {each}; expected a finite number")
        if isinstance(each, dict):
            pending += [(where, key) for key in each if isinstance(key, str)]
            pending += [(f"{where}.{key}".lstrip("."), item) for key, item in each.items()]
        elif isinstance(each, list | tuple):
            pending += [(f"{where}.{index}".lstrip("."), item) for index, item in enumerate(each)]


def _has_lone_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


class JsonFile(ABC):
    """A value that can be kept as a JSON file.

    Attributes:
        error: raised where a file is none of this kind.
    """

    error: ClassVar[type[MezzotintError]]

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` reads them back."""

    @classmethod
    @abstractmethod
    def from_dict(cls, value: Any, source: str) -> Self:
        """Validate and build; raises `error`, naming `source` and the field at fault."""

    def save(self, path: str | Path) -> None:
        """Write as JSON that a person can read and edit; complete or not at all."""
        write_json(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            MezzotintError: `error`: the file is missing, not JSON, or not of this kind.
        """
        return cls.from_dict(read_json(Path(path), cls.error), str(path))


def validated(
    kind: type[ModelT], value: Any, source: object, error: type[MezzotintError]
) -> ModelT:
    """A JSON value as `kind`; raises `error` naming the source, and the field at fault."""
    try:
        return kind.model_validate(value)
    except ValidationError as cause:
        first = cause.errors()[0]
        where = ".".join(map(str, first["loc"])) or "top level"
        raise error(f"{source}: field {where}: {first['msg']}") from cause
