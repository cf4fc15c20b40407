"""One at a time, of all processes and threads."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from mezzotint import _locks
from mezzotint._locks import one_at_a_time, only_here
from mezzotint.errors import UsageError

HOLDER = """
import sys
from pathlib import Path
from mezzotint._locks import only_here
with only_here(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds `path`, until it is told to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.communicate("")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out"


def refused(path: Path) -> str:
    with pytest.raises(UsageError) as caught, only_here(path, again=True):
        pass
    return str(caught.value)


def test_another_process_is_told(path: Path):
    with another_process(path):
        assert refused(path).startswith(f"{path}: another process is at work on it; wait for that")
    with only_here(path):
        pass


def test_one_that_was_killed_holds_nobody_off(path: Path):
    with another_process(path) as process:
        process.kill()
        process.wait()
        with only_here(path):
            pass
    assert list(path.parent.iterdir()) == []


def test_another_thread_is_told(path: Path):
    with only_here(path), ThreadPoolExecutor() as pool:
        assert "another process" in pool.submit(refused, path).result()


def test_the_same_thread_is_told_unless_it_goes_on(path: Path):
    with only_here(path):
        with pytest.raises(UsageError, match="another process"), only_here(path):
            pass
        with only_here(path, again=True):
            pass
        with ThreadPoolExecutor() as pool:
            assert "another process" in pool.submit(refused, path).result()


def test_however_it_is_written(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(path.parent)
    with only_here(Path(path.name)), ThreadPoolExecutor() as pool:
        assert "another process" in pool.submit(refused, path).result()


def test_it_is_released_where_open_files_cannot_be_removed(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Windows refuses that; the library removes the file afterwards."""

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "used by another process", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with only_here(path):
            pass
    with ThreadPoolExecutor() as pool, only_here(path):
        assert "another process" in pool.submit(refused, path).result()


def test_nothing_stays(path: Path):
    with only_here(path):
        assert [each.name for each in path.parent.iterdir()] == [".out.lock"]
    assert list(path.parent.iterdir()) == []


def test_folders_around_it_stay_only_with_something_in_them(tmp_path: Path):
    path = tmp_path / "deep" / "er" / "out"
    with only_here(path):
        assert path.parent.is_dir()
    assert list(tmp_path.iterdir()) == []
    with only_here(path):
        path.parent.with_name("kept").touch()
    assert [each.name for each in (tmp_path / "deep").iterdir()] == ["kept"]


class TestOneAtATime:
    def test_another_is_waited_for(self, tmp_path):
        inside = []

        def work(name):
            with one_at_a_time(tmp_path / "kept"):
                inside.append(f"{name} begins")
                time.sleep(0.01)
                inside.append(f"{name} ends")

        with ThreadPoolExecutor(2) as both:
            list(both.map(work, "ab"))
        assert inside in (
            ["a begins", "a ends", "b begins", "b ends"],
            ["b begins", "b ends", "a begins", "a ends"],
        )

    def test_one_that_never_ends_is_not_waited_for_for_ever(self, tmp_path, monkeypatch):
        monkeypatch.setattr(_locks, "_PATIENCE", 0.01)
        reached = False
        with FileLock(tmp_path / "kept.lock"), one_at_a_time(tmp_path / "kept"):
            reached = True
        assert reached

    def test_without_a_place_the_work_is_done_all_the_same(self, tmp_path):
        (tmp_path / "file").write_text("a file")
        reached = False
        with one_at_a_time(tmp_path / "file" / "kept"):
            reached = True
        assert reached
