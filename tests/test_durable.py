"""Content before names, and two folders that change places."""

import errno
import os
from pathlib import Path

import pytest

from mezzotint import _durable
from mezzotint._durable import exchange, sync_tree


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files and folders that are synced, in that order."""
    found: list[Path] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        found.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    return found


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders, with a file each."""
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").write_text(name)
    return tmp_path / "left", tmp_path / "right"


def content(folder: Path) -> str:
    return (folder / "content").read_text()


def test_contents_are_synced_before_names(tmp_path: Path, synced: list[Path]):
    (tmp_path / "below").mkdir()
    files = [tmp_path / "a", tmp_path / "below" / "b"]
    for file in files:
        file.write_text("content")
    (tmp_path / "link").symlink_to("nowhere")
    sync_tree(tmp_path)
    assert sorted(synced[:2]) == files
    assert sorted(synced[2:]) == [tmp_path, tmp_path / "below"]


def test_two_folders_change_places(pair: tuple[Path, Path]):
    left, right = pair
    assert exchange(left, right)
    assert (content(left), content(right)) == ("right", "left")


def test_a_folder_that_is_not_there_is_an_error(pair: tuple[Path, Path], tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="none"):
        exchange(pair[0], tmp_path / "none")


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL, errno.ENOTSUP], ids=os.strerror)
def test_a_file_system_that_cannot_changes_nothing(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, code: int
):
    monkeypatch.setattr(_durable, "_renameat2", lambda: lambda *_: -1)
    monkeypatch.setattr(_durable.ctypes, "get_errno", lambda: code)
    assert not exchange(*pair)
    assert content(pair[0]) == "left"
