"""States of a training on disk: complete or absent, and of one training only."""

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from mezzotint.errors import JournalError, UsageError
from mezzotint.training import Point
from mezzotint.training import states as module
from mezzotint.training.position import Position, Sums
from mezzotint.training.states import (
    State,
    StateFolder,
    discard_training,
    only_here,
)

IDENTITY = {"options": {"rank": 4, "words": ("a", "b")}, "plan": "12ab"}
STATE = State(
    Position(7, 1.25, 2, (0.5, 1 / 3), 0.9, 0.7, Sums(3, 0.1, 0.2, 0.3), (Point(5, 1.0, 0.1),)),
    {"layer.weight.lora.up": torch.randn(3, 2)},
    {"step.layer.weight.lora.up": torch.tensor(7.0)},
    tuple(torch.full((2,), float(index)) for index in range(12)),
)


def saved(folder: Path, identity: dict[str, object] | None = None) -> StateFolder:
    kept = StateFolder(folder, IDENTITY if identity is None else identity)
    kept.save(STATE)
    return kept


def test_a_state_is_read_as_it_was_written(tmp_path: Path):
    found = saved(tmp_path / "training").load()
    assert found.position == STATE.position
    for ours, theirs in ((found.parameters, STATE.parameters), (found.optimizer, STATE.optimizer)):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], each) for name, each in theirs.items())
    assert all(map(torch.equal, found.outputs, STATE.outputs))
    assert len(found.outputs) == 12


def test_there_is_none_at_first(tmp_path: Path):
    assert StateFolder(tmp_path / "training", IDENTITY).load() is None
    assert StateFolder(None, IDENTITY).load() is None


def test_a_write_that_fails_leaves_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kept = saved(tmp_path / "training")

    def full(*_: object) -> None:
        raise SafetensorError("no space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(JournalError, match=r"cannot be written .*no space left"):
        kept.save(STATE)
    assert [each.name for each in tmp_path.iterdir()] == ["training"]
    assert kept.load() is not None


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        ({"options": {"rank": 8, "words": ["a", "b"]}, "plan": "12ab"}, "options.rank"),
        ({"options": {"rank": 4, "words": ["a"]}, "plan": "12ab"}, "options.words"),
        ({"options": {"rank": 4, "words": ["a", "b"]}, "plan": "34cd"}, "plan"),
        ({"options": {"rank": 4, "words": ["a", "b"]}}, "plan"),
    ],
)
def test_what_differs_from_another_training_is_named(
    tmp_path: Path, identity: dict[str, object], name: str
):
    saved(tmp_path / "training")
    with pytest.raises(JournalError, match=f"was begun with {name} = "):
        StateFolder(tmp_path / "training", identity).load()


@pytest.mark.parametrize("length", [1, 40, -3], ids=["start", "header", "end"])
@pytest.mark.parametrize("file", ["training.json", "training.safetensors"])
def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path, file: str, length: int):
    kept = saved(tmp_path / "training")
    path = tmp_path / "training" / file
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(JournalError, match=rf"{file}: .*; delete the folder .*training to train"):
        kept.load()


def test_a_changed_byte_is_found(tmp_path: Path):
    kept = saved(tmp_path / "training")
    path = tmp_path / "training" / "training.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(JournalError, match="its bytes are not those that were written"):
        kept.load()


def test_what_is_ignored_may_differ(tmp_path: Path):
    saved(tmp_path / "training")
    other = {"options": {"rank": 8, "words": ["a", "b"]}}
    ignored = {"options.rank", "plan"}
    assert StateFolder(tmp_path / "training", other, ignored).load() is not None


class TestLock:
    def test_two_runs_cannot_share_a_folder(self, tmp_path: Path):
        other = pytest.raises(UsageError, match="training: another process is at work")
        with only_here(tmp_path / "training"), other, only_here(tmp_path / "training"):
            pass
        with only_here(tmp_path / "training"), only_here(tmp_path / "other"):
            pass

    def test_nothing_is_left_of_it(self, tmp_path: Path):
        with only_here(tmp_path / "below" / "training"):
            assert list((tmp_path / "below").iterdir())
        assert not (tmp_path / "below").exists()
        with only_here(tmp_path / "below" / "training"):
            pass

    def test_a_killed_run_leaves_nobody_locked_out(self, tmp_path: Path):
        (tmp_path / ".training.lock").touch()
        with only_here(tmp_path / "training"):
            pass

    def test_states_are_not_deleted_under_a_run(self, tmp_path: Path):
        saved(tmp_path / "training")
        refused = pytest.raises(UsageError, match="another process is at work")
        with only_here(tmp_path / "training"), refused:
            discard_training(tmp_path / "training")
        discard_training(tmp_path / "training")
        assert not list(tmp_path.iterdir())

    def test_no_folder_needs_none(self):
        with only_here(None), only_here(None):
            pass


def test_json_of_something_else_is_named_with_the_field(tmp_path: Path):
    kept = saved(tmp_path / "training")
    (tmp_path / "training" / "training.json").write_text('{"identity": {}}')
    with pytest.raises(
        JournalError, match=r"training\.json: field position: .*; delete the folder"
    ):
        kept.load()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "poem.txt").write_text("")
    with pytest.raises(UsageError, match="holds something else"):
        StateFolder(tmp_path, IDENTITY)
