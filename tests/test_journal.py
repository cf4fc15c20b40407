import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import mezzotint
from mezzotint._journal import Journal, Record, discard_journal
from mezzotint._journal_lines import VERSION, Header
from mezzotint.errors import JournalError, UsageError
from tests import journals

HEADER = {"model": "emoji-turbo", "seed": 0, "search": {"steps": 40}}
UNITS = {"a | int4/channel | float": {"noise": 0.25}, "b | int2/channel | float": {"noise": 1.5}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of two finished units."""
    path = tmp_path / "journal.jsonl"
    with Journal(path, HEADER) as journal:
        for unit, result in UNITS.items():
            journal.add(unit, result)
    return path


def entries(path: Path, header: Mapping[str, Any] = HEADER) -> dict[str, dict[str, Any]]:
    with Journal(path, header) as journal:
        return dict(journal.entries)


class TestResuming:
    def test_finished_units_are_there_again(self, path: Path):
        with Journal(path, HEADER) as journal:
            for unit, result in UNITS.items():
                assert unit in journal
                assert journal[unit] == result
            assert "c | int4/channel | float" not in journal

    def test_new_units_join_the_old(self, path: Path):
        with Journal(path, HEADER) as journal:
            journal.add("c", {"noise": 0.0})
        assert entries(path) == UNITS | {"c": {"noise": 0.0}}

    def test_opening_changes_nothing(self, path: Path):
        before = path.read_bytes()
        entries(path)
        assert path.read_bytes() == before

    def test_floats_survive_exactly(self, path: Path):
        noise = 0.1 + 0.2
        with Journal(path, HEADER) as journal:
            journal.add("c", {"noise": noise})
        assert entries(path)["c"]["noise"] == noise

    @pytest.mark.parametrize("name", ["ü", "line\nbreak", "\r", "\u2028", '"quoted"', ""])
    def test_any_name_survives(self, path: Path, name: str):
        with Journal(path, HEADER) as journal:
            journal.add(name, {"noise": 1.0})
        assert entries(path)[name] == {"noise": 1.0}

    def test_a_unit_measured_twice_keeps_the_later_result(self, path: Path):
        unit = next(iter(UNITS))
        with Journal(path, HEADER) as journal:
            journal.add(unit, {"noise": 9.0})
        assert entries(path)[unit] == {"noise": 9.0}

    def test_the_folder_is_made(self, tmp_path: Path):
        assert entries(tmp_path / "deep" / "er" / "journal.jsonl") == {}

    def test_a_header_may_hold_tuples(self, tmp_path: Path):
        header = {"prompts": ("owl", "fox"), "nested": {"steps": (1, 2)}}
        with Journal(tmp_path / "journal", header) as journal:
            journal.add("a", {"noise": 1.0})
        assert entries(tmp_path / "journal", header) == {"a": {"noise": 1.0}}


class TestKills:
    @pytest.mark.parametrize("cut", range(1, 60))
    def test_a_last_line_cut_short_is_dropped(self, path: Path, cut: int):
        whole = path.read_bytes()
        last = whole.splitlines(keepends=True)[-1]
        assert cut < len(last)
        path.write_bytes(whole[:-cut])
        first, second = UNITS
        assert entries(path) == {first: UNITS[first]}
        with Journal(path, HEADER) as journal:
            journal.add(second, UNITS[second])
        assert path.read_bytes() == whole

    def test_a_cut_header_starts_the_journal_anew(self, path: Path):
        header = path.read_bytes().splitlines(keepends=True)[0]
        for length in range(len(header)):
            path.write_bytes(header[:length])
            assert entries(path) == {}
            assert path.read_bytes() == header

    def test_an_entry_is_on_disk_as_soon_as_it_is_added(self, tmp_path: Path):
        path = tmp_path / "journal"
        journal = Journal(path, HEADER)
        for unit, result in UNITS.items():
            journal.add(unit, result)
            first, *_, line = path.read_bytes().splitlines(keepends=True)
            assert Header.of(first).entry_of(line) == (unit, result)
        journal.close()


class TestRefusals:
    @pytest.mark.parametrize(
        ("key", "value", "told"),
        [
            ("seed", 1, "seed = 0, now it is 1"),
            ("search", {"steps": 80}, "search = .'steps': 40.*'steps': 80"),
            ("model", None, "model = 'emoji-turbo', now it is None"),
            ("device", "cuda", "device = None, now it is 'cuda'"),
        ],
        ids=["changed", "nested", "removed", "added"],
    )
    def test_another_header_is_refused_naming_the_key(
        self, path: Path, key: str, value: object, told: str
    ):
        before = path.read_bytes()
        with pytest.raises(JournalError, match=told):
            Journal(path, HEADER | {key: value})
        assert path.read_bytes() == before

    @pytest.mark.parametrize(
        "line",
        [
            b"garbage",
            b"",
            b"{}",
            b"[]",
            b"3",
            b'{"unit": "a"}',
            b'{"unit": [], "result": {}}',
            b'{"unit": "a", "result": 5}',
            b"\xff\xfe",
            b'{"unit": "a", "resu',
        ],
    )
    def test_a_damaged_line_in_the_middle_is_refused_by_number(self, path: Path, line: bytes):
        lines = path.read_bytes().splitlines()
        path.write_bytes(b"\n".join([lines[0], line, lines[2]]) + b"\n")
        with pytest.raises(JournalError, match=r"line 2 is damaged \(.*\); delete the file"):
            Journal(path, HEADER)

    @pytest.mark.parametrize("line", [b"garbage", b"{}", b'{"header": []}', b'{"header": 3}'])
    def test_a_damaged_header_is_refused(self, path: Path, line: bytes):
        lines = path.read_bytes().splitlines()
        path.write_bytes(b"\n".join([line, *lines[1:]]) + b"\n")
        with pytest.raises(JournalError, match="line 1 is"):
            Journal(path, HEADER)

    @pytest.mark.parametrize("text", ["dear diary\n", "my only notes", '{"a": 1}\n'])
    def test_another_file_is_neither_overwritten_nor_deleted(self, tmp_path: Path, text: str):
        path = tmp_path / "notes.txt"
        path.write_text(text)
        with pytest.raises(JournalError, match=r"notes\.txt: line 1"):
            Journal(path, HEADER)
        with pytest.raises(JournalError, match=r"notes\.txt: line 1"):
            discard_journal(path)
        assert path.read_text() == text

    def test_a_journal_is_deleted(self, path: Path, tmp_path: Path):
        discard_journal(path)
        assert not path.exists()
        discard_journal(tmp_path / "nothing.jsonl")


class TestTrust:
    """A figure that was changed is found, whoever changed it."""

    def lines(self, path: Path) -> list[bytes]:
        return path.read_bytes().splitlines(keepends=True)

    @pytest.mark.parametrize("at", range(0, 130, 7))
    def test_a_changed_byte_of_a_line(self, path: Path, at: int):
        lines = self.lines(path)
        line = bytearray(lines[1])
        line[at % (len(line) - 1)] ^= 1
        path.write_bytes(b"".join([lines[0], bytes(line), lines[2]]))
        with pytest.raises(JournalError, match="line 2 is damaged"):
            Journal(path, HEADER)

    @pytest.mark.parametrize(("line", "name"), [(1, b"emoji-"), (2, b"int4/"), (3, b"int2/")])
    def test_a_carriage_return_in_a_line(self, path: Path, line: int, name: bytes):
        """A flipped bit makes one of a hyphen; it ends no line, and what follows is not lost."""
        content = path.read_bytes().replace(name, name[:-1] + b"\r")
        path.write_bytes(content)
        with pytest.raises(JournalError, match=f"line {line} is damaged"):
            Journal(path, HEADER)
        assert path.read_bytes() == content

    def test_another_figure(self, path: Path):
        path.write_bytes(path.read_bytes().replace(b"0.25", b"0.52"))
        with pytest.raises(JournalError, match=r"line 2 is damaged \(its checksum is that of ano"):
            Journal(path, HEADER)

    def test_figures_that_changed_places(self, path: Path):
        content = path.read_bytes()
        path.write_bytes(
            content.replace(b"0.25", b"x").replace(b"1.5", b"0.25").replace(b"x", b"1.5")
        )
        with pytest.raises(JournalError, match="its checksum"):
            Record.read(path)

    def test_a_line_of_another_journal(self, path: Path, tmp_path: Path):
        unit = next(iter(UNITS))
        with Journal(tmp_path / "other", HEADER | {"seed": 1}) as other:
            other.add(unit, {"noise": 0.5})
        first, _, third = self.lines(path)
        moved = (tmp_path / "other").read_bytes().splitlines(keepends=True)[1]
        path.write_bytes(first + moved + third)
        with pytest.raises(JournalError, match=r"line 2 is damaged .* or of another journal's"):
            Journal(path, HEADER)

    def test_a_line_without_checksum(self, path: Path):
        with path.open("a") as file:
            file.write('{"unit": "c", "result": {"noise": 1.0}}\n')
        with pytest.raises(JournalError, match="line 4 is damaged"):
            Record.read(path)

    def test_another_header_value(self, path: Path):
        path.write_bytes(path.read_bytes().replace(b'"seed": 0', b'"seed": 1'))
        with pytest.raises(JournalError, match="line 1 is damaged"):
            Journal(path, HEADER | {"seed": 1})

    def test_lines_may_be_removed(self, path: Path):
        first, _, third = self.lines(path)
        path.write_bytes(first + third)
        assert list(entries(path)) == [list(UNITS)[1]]

    @pytest.mark.parametrize(
        ("value", "why"),
        [
            (True, "noise is True"),
            (float("nan"), "noise is nan"),
            (float("inf"), "noise is inf"),
            (10**400, "noise is 1000"),
            ({}, "noise is {}"),
            ([1], r"noise is \[1\]"),
        ],
        ids=["bool", "nan", "infinite", "huge", "object", "numbers"],
    )
    def test_what_is_no_figure_is_named(self, path: Path, value: object, why: str):
        journals.edit(path, lambda _, found: [*found, ("c", {"noise": value})])
        with pytest.raises(JournalError, match=f"unit 'c': {why}"):
            Journal(path, HEADER)

    @pytest.mark.parametrize("value", [1.5, 0, None, "text", ["a", "b"]], ids=str)
    def test_what_is_one_is_read(self, path: Path, value: object):
        journals.edit(path, lambda _, found: [*found, ("c", {"noise": value})])
        assert entries(path)["c"] == {"noise": value}


class TestVersions:
    def test_the_header_names_ours(self, path: Path):
        first = json.loads(path.read_bytes().splitlines()[0])
        assert first["mezzotint"] == mezzotint.__version__

    def test_one_of_another_version_is_refused(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("mezzotint._journal.VERSION", "9.9.9")
        with pytest.raises(
            JournalError, match=r"was written by mezzotint 0\.1\.0, and figures of 9\.9\.9 may be"
        ):
            Journal(path, HEADER)

    def test_one_from_before_there_were_checks_is_gone_on_with(self, tmp_path: Path):
        path = tmp_path / "old.jsonl"
        first, second = UNITS
        lines = [{"header": HEADER}, {"unit": first, "result": UNITS[first]}]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        with Journal(path, HEADER) as journal:
            assert journal.entries == {first: UNITS[first]}
            journal.add(second, UNITS[second])
        assert entries(path) == UNITS
        content = path.read_bytes()
        path.write_bytes(content.replace(b"1.5", b"2.5"))
        with pytest.raises(JournalError, match="line 3 is damaged"):
            Journal(path, HEADER)

    def test_one_whose_lines_knew_no_header_is_gone_on_with(self, tmp_path: Path):
        path = tmp_path / "old.jsonl"
        first, second = UNITS
        lines = [{"header": HEADER, "mezzotint": VERSION}, {"unit": first, "result": UNITS[first]}]
        for line in lines:
            digest = hashlib.sha256(json.dumps(line).encode()).hexdigest()[:16]
            with path.open("a") as file:
                file.write(json.dumps({**line, "check": digest}) + "\n")
        with Journal(path, HEADER) as journal:
            assert journal.entries == {first: UNITS[first]}
            journal.add(second, UNITS[second])
        assert entries(path) == UNITS


class TestTwoAtATime:
    def attempt(self, work: Callable[[], object]) -> str:
        """The error of another thread, which fares like another process."""
        with ThreadPoolExecutor() as pool, pytest.raises(UsageError) as caught:
            pool.submit(work).result()
        return str(caught.value)

    def test_one_writes(self, path: Path):
        with Journal(path, HEADER) as journal:
            message = self.attempt(lambda: Journal(path, HEADER))
            journal.add("c", {"noise": 2.0})
        assert message.startswith(f"{path}: another process is at work on it")
        assert entries(path) == UNITS | {"c": {"noise": 2.0}}

    def test_it_is_not_deleted_meanwhile(self, path: Path):
        with Journal(path, HEADER):
            assert "another process" in self.attempt(lambda: discard_journal(path))
        assert entries(path) == UNITS

    def test_nothing_of_the_lock_stays(self, path: Path):
        entries(path)
        with pytest.raises(JournalError):
            Journal(path, {})
        assert [each.name for each in path.parent.iterdir()] == [path.name]


class TestInMemory:
    def test_without_a_path_nothing_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.chdir(tmp_path)
        with Journal(None, HEADER) as journal:
            journal.add("a", {"noise": 1.0})
            assert journal["a"] == {"noise": 1.0}
        assert list(tmp_path.iterdir()) == []

    def test_entries_stay_readable_after_closing(self, path: Path):
        journal = Journal(path, HEADER)
        journal.close()
        journal.close()
        assert journal.entries == UNITS
