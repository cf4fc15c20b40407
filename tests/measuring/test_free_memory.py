"""Free memory, as the files of a Linux system tell it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mezzotint.measuring.free_memory import free_bytes

CPU = torch.device("cpu")
MIB = 2**20


def system(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A file system with 8 GiB available, and these files."""
    written = {"proc/meminfo": f"MemTotal: 1 kB\nMemAvailable: {8 * 2**20} kB\n"}
    written["proc/self/cgroup"] = groups
    for name, text in (written | files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def group(path: str, limit: str, used: int, cached: int = 0) -> dict[str, str]:
    """A group of the second version, below `path`."""
    place = f"sys/fs/cgroup/{path}"
    return {
        f"{place}memory.max": f"{limit}\n",
        f"{place}memory.current": f"{used}\n",
        f"{place}memory.stat": f"anon 7\ninactive_file {cached}\n",
    }


def first_version(path: str, limit: int, used: int, cached: int) -> dict[str, str]:
    place = f"sys/fs/cgroup/memory/{path}"
    return {
        f"{place}memory.limit_in_bytes": f"{limit}\n",
        f"{place}memory.usage_in_bytes": f"{used}\n",
        f"{place}memory.stat": f"inactive_file 1\ntotal_inactive_file {cached}\n",
    }


FILES = {
    "no group": ("0::/\n", {}, 8 * 2**30),
    "no limit": ("0::/a\n", group("a/", "max", 5), 8 * 2**30),
    "a limit": ("0::/a\n", group("a/", str(100 * MIB), 30 * MIB), 70 * MIB),
    "cached files": ("0::/a\n", group("a/", str(100 * MIB), 30 * MIB, 5 * MIB), 75 * MIB),
    "the group around it": (
        "0::/a/b\n",
        group("a/", str(100 * MIB), 90 * MIB) | group("a/b/", "max", 5),
        10 * MIB,
    ),
    "a path from outside": (
        "0::/outside/pod\n",
        group("", str(100 * MIB), 40 * MIB),
        60 * MIB,
    ),
    "first version": (
        "5:cpu:/x\n4:memory:/a\n0::/\n",
        first_version("a/", 100 * MIB, 30 * MIB, 2 * MIB),
        72 * MIB,
    ),
    "first version without a limit": (
        "4:memory:/a\n",
        first_version("a/", 2**63 - 4096, 30 * MIB, 0),
        8 * 2**30,
    ),
    "more used than allowed": ("0::/a\n", group("a/", "5", 6), 0),
}


@pytest.mark.parametrize(("groups", "files", "free"), FILES.values(), ids=FILES.keys())
def test_the_least_of_the_system_and_its_groups_counts(
    tmp_path: Path, groups: str, files: dict[str, str], free: int
):
    assert free_bytes(CPU, system(tmp_path, groups, files)) == free


def test_where_nothing_tells_nothing_is_known(tmp_path: Path):
    assert free_bytes(CPU, tmp_path) is None
