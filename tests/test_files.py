import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from mezzotint import _durable
from mezzotint._files import read_json, remove_remains, replacing, write_json
from mezzotint._folders import replacing_folder
from mezzotint._resuming import resumable_folder
from mezzotint.errors import CheckpointError, PlanError, UsageError


class _Interruption(BaseException):
    """An error as unexpected as a keyboard interrupt."""


@pytest.fixture
def umask() -> Iterator[int]:
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def interrupt(path: Path, error: type[BaseException]) -> NoReturn:
    path.write_text("half")
    raise error


class TestReplacing:
    def test_the_file_appears_when_the_block_succeeds(self, tmp_path: Path):
        target = tmp_path / "deep" / "er" / "a.txt"
        with replacing(target) as temporary:
            assert temporary.parent == target.parent
            temporary.write_text("new")
            assert not target.exists()
        assert target.read_text() == "new"
        assert names(target.parent) == ["a.txt"]

    def test_a_failure_leaves_no_folders_that_were_made_for_it(self, tmp_path: Path):
        (tmp_path / "mine").mkdir()
        with pytest.raises(ValueError, match="no"), replacing(tmp_path / "mine" / "a" / "b.txt"):
            raise ValueError("no")
        assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]

    @pytest.mark.parametrize("error", [ValueError, _Interruption])
    def test_a_failure_leaves_what_was_there(self, tmp_path: Path, error: type[BaseException]):
        target = tmp_path / "a.txt"
        target.write_text("old")
        with pytest.raises(error), replacing(target) as temporary:
            interrupt(temporary, error)
        assert target.read_text() == "old"
        assert names(tmp_path) == ["a.txt"]

    def test_permissions_follow_the_umask(self, tmp_path: Path, umask: int):
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("new")
        assert mode(tmp_path / "a.txt") == 0o666 & ~umask


class TestRemains:
    def test_what_a_killed_write_has_left_goes_and_nothing_else(self, tmp_path: Path):
        (tmp_path / "below").mkdir()
        kept = [tmp_path / ".gitattributes", tmp_path / "below" / "model.json"]
        for path in (*kept, tmp_path / "below" / ".model.json.m0n2oe96"):
            path.touch()
        remove_remains(tmp_path)
        assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)


class TestReplacingFolder:
    @staticmethod
    def fill(folder: Path, *names: str) -> None:
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).write_text(name)

    def test_the_folder_appears_when_the_block_succeeds(self, tmp_path: Path):
        target = tmp_path / "deep" / "model"
        with replacing_folder(target) as temporary:
            self.fill(temporary, "a", "b")
            assert not target.exists()
        assert names(target) == ["a", "b"]
        assert names(target.parent) == ["model"]

    def test_an_older_folder_is_replaced_as_a_whole(self, tmp_path: Path):
        target = tmp_path / "model"
        self.fill(target, "a", "stale")
        with replacing_folder(target) as temporary:
            self.fill(temporary, "a", "b")
            assert names(target) == ["a", "stale"]
        assert names(target) == ["a", "b"]
        assert names(tmp_path) == ["model"]

    @pytest.mark.parametrize("error", [ValueError, _Interruption])
    def test_a_failure_leaves_what_was_there(self, tmp_path: Path, error: type[BaseException]):
        target = tmp_path / "model"
        self.fill(target, "old")
        with pytest.raises(error), replacing_folder(target) as temporary:
            interrupt(temporary / "file", error)
        assert names(target) == ["old"]
        assert names(tmp_path) == ["model"]

    def test_a_failure_leaves_nothing_where_nothing_was(self, tmp_path: Path):
        with pytest.raises(ValueError, match="no"), replacing_folder(tmp_path / "model"):
            raise ValueError("no")
        assert names(tmp_path) == []

    @pytest.mark.parametrize("exchanges", [True, False], ids=["one step", "two renames"])
    def test_a_link_to_a_folder_is_replaced_and_the_folder_is_not(
        self, tmp_path: Path, exchanges: bool, monkeypatch: pytest.MonkeyPatch
    ):
        if not exchanges:
            monkeypatch.setattr(_durable, "_renameat2", lambda: None)
        self.fill(tmp_path / "elsewhere", "old")
        target = tmp_path / "model"
        target.symlink_to(tmp_path / "elsewhere")
        with replacing_folder(target) as temporary:
            self.fill(temporary, "new")
        assert names(target) == ["new"]
        assert names(tmp_path / "elsewhere") == ["old"]
        assert names(tmp_path) == ["elsewhere", "model"]

    def test_where_nothing_can_be_exchanged_there_are_two_renames(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(_durable, "_renameat2", lambda: None)
        self.test_an_older_folder_is_replaced_as_a_whole(tmp_path)

    def test_what_a_kill_between_them_left_is_put_back(self, tmp_path: Path):
        self.fill(tmp_path / ".model.former", "old")
        with pytest.raises(ValueError, match="no"), replacing_folder(tmp_path / "model"):
            raise ValueError("no")
        assert names(tmp_path) == ["model"]
        assert names(tmp_path / "model") == ["old"]

    def test_what_a_kill_after_them_left_is_removed(self, tmp_path: Path):
        self.fill(tmp_path / ".model.former", "old")
        self.fill(tmp_path / "model", "new")
        with replacing_folder(tmp_path / "model") as temporary:
            self.fill(temporary, "newer")
        assert names(tmp_path) == ["model"]
        assert names(tmp_path / "model") == ["newer"]

    def test_remains_of_killed_saves_are_removed_and_those_of_others_stay(self, tmp_path: Path):
        for name in (".model.saving-abcd1234", ".model.b.saving-abcd1234", ".model.mine"):
            self.fill(tmp_path / name, "half")
        with replacing_folder(tmp_path / "model") as temporary:
            self.fill(temporary, "new")
        assert names(tmp_path) == [".model.b.saving-abcd1234", ".model.mine", "model"]

    @pytest.mark.parametrize("there", [True, False], ids=["replaced", "made"])
    def test_what_another_program_writes_meanwhile_stays(self, tmp_path: Path, there: bool):
        target = tmp_path / "model"
        if there:
            self.fill(target, "old")

        def replaced() -> None:
            with replacing_folder(target) as temporary:
                self.fill(temporary, "new")
                self.fill(target, "theirs")

        with pytest.raises(UsageError, match="another program has written there meanwhile"):
            replaced()
        assert "theirs" in names(target)
        assert names(tmp_path) == ["model"]

    def test_a_file_in_the_way_is_refused(self, tmp_path: Path):
        target = tmp_path / "model"
        target.write_text("mine")
        with pytest.raises(UsageError, match="is a file"), replacing_folder(target):
            pass
        assert target.read_text() == "mine"

    def test_permissions_follow_the_umask(self, tmp_path: Path, umask: int):
        with replacing_folder(tmp_path / "model"):
            pass
        assert mode(tmp_path / "model") == 0o777 & ~umask


class TestJson:
    def test_what_is_written_is_read(self, tmp_path: Path):
        value = {"a": [1, 2.5, None, True], "ü": {"nested": "✓"}}
        write_json(tmp_path / "a.json", value)
        assert read_json(tmp_path / "a.json", PlanError) == value

    def test_text_is_indented_utf8_with_a_final_newline(self, tmp_path: Path):
        write_json(tmp_path / "a.json", {"ü": 1})
        assert (tmp_path / "a.json").read_bytes() == '{\n  "ü": 1\n}\n'.encode()

    def test_what_json_cannot_hold_leaves_the_old_file(self, tmp_path: Path):
        write_json(tmp_path / "a.json", 1)
        with pytest.raises(TypeError):
            write_json(tmp_path / "a.json", object())
        assert json.loads((tmp_path / "a.json").read_text()) == 1
        assert names(tmp_path) == ["a.json"]

    @pytest.mark.parametrize("error", [PlanError, CheckpointError])
    def test_the_caller_s_error_names_file_and_line(self, tmp_path: Path, error: type[Exception]):
        (tmp_path / "a.json").write_text('{\n "a": 1,\n}')
        with pytest.raises(error, match=r"a\.json: not valid JSON \(line [23]"):
            read_json(tmp_path / "a.json", error)

    @pytest.mark.parametrize("content", [b"[" * 100_000, b"9" * 5000], ids=["deep", "long-number"])
    def test_what_python_cannot_hold_is_the_caller_s_error_too(
        self, tmp_path: Path, content: bytes
    ):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(PlanError, match=r"a\.json: not usable JSON"):
            read_json(tmp_path / "a.json", PlanError)

    def test_missing_and_unreadable_files_are_told_apart(self, tmp_path: Path):
        with pytest.raises(PlanError, match="no such file"):
            read_json(tmp_path / "a.json", PlanError)
        with pytest.raises(PlanError, match="cannot be read"):
            read_json(tmp_path, PlanError)
        (tmp_path / "b.json").write_bytes(b'"\xff"')
        with pytest.raises(PlanError, match="cannot be read"):
            read_json(tmp_path / "b.json", PlanError)


@pytest.mark.parametrize("kind", ["replacing", "resumable"])
def test_a_refused_folder_leaves_no_folders_that_were_made_for_it(tmp_path: Path, kind: str):
    target = tmp_path / "a" / "b" / "out"
    folder = (
        replacing_folder(target)
        if kind == "replacing"
        else resumable_folder(target, "job", error=CheckpointError, pieces="shards")
    )
    with pytest.raises(PlanError, match="refused"), folder:
        raise PlanError("refused")
    assert list(tmp_path.iterdir()) == []
