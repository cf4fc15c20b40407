"""Memory that a process may still take: of a device, of the system, within its control groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch


@dataclass(frozen=True)
class _Files:
    """Names of what a version of control groups tells of memory.

    Attributes:
        mount: folder of the groups, below the root.
        limit: file of the most bytes.
        used: file of the bytes that are taken, with what is cached of files.
        cached: entry of `memory.stat` for cached bytes that are given up where others need them.
    """

    mount: str
    limit: str
    used: str
    cached: str


_SECOND = _Files("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
_FIRST = _Files(
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "total_inactive_file",
)


def free_bytes(device: torch.device, root: Path = Path("/")) -> int | None:
    """Bytes that can be allocated on a device; None where the system does not tell.

    On the CPU that is the least of what the system has available, and of what each control group
    of this process leaves, as containers set them.

    Args:
        device: CUDA or the CPU.
        root: of the file system that tells.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [_entry(root / "proc/meminfo", "MemAvailable:", 1024), *_left_in_groups(root)]
    told = [each for each in found if each is not None]
    return min(told) if told else None


def _left_in_groups(root: Path) -> Iterator[int | None]:
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        if number == "0":
            files = _SECOND
        elif "memory" in controllers.split(","):
            files = _FIRST
        else:
            continue
        mount = root / files.mount
        group = PurePosixPath(path.lstrip("/"))
        # Limits of a group hold for all groups in it. Where a container sees its own group as the
        # top, the path from outside leads nowhere, and the top is what counts.
        for each in (group, *group.parents):
            yield _left(mount / each, files)


def _left(group: Path, files: _Files) -> int | None:
    """Bytes that a group leaves; None where it has no limit, or is not seen."""
    limit, used = _number(group / files.limit), _number(group / files.used)
    if limit is None or used is None:
        return None
    return max(0, limit - used + (_entry(group / "memory.stat", files.cached, 1) or 0))


def _number(file: Path) -> int | None:
    text = "".join(_lines(file))
    return int(text) if text.isdecimal() else None  # `max` for no limit


def _entry(file: Path, name: str, unit: int) -> int | None:
    """Bytes of a line that begins with a name."""
    rows = (line.split() for line in _lines(file))
    found = next((row[1] for row in rows if row and row[0] == name), None)
    return None if found is None else int(found) * unit


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
