"""Two commands at one output: the second is told, and nothing of the first's is lost."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import mezzotint as mz
from mezzotint._journal import Journal
from mezzotint._locks import only_here
from mezzotint.cli import _output
from mezzotint.cli._output import reserved
from mezzotint.errors import UsageError
from tests.test_locks import another_process


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.mark.parametrize(
    "command",
    [
        ("quantize",),
        ("quantize", "--resume"),
        ("quantize", "--force"),
        ("pack",),
        ("pack", "--force"),
    ],
    ids=" ".join,
)
def test_the_second_is_told_before_anything_else(fails, model, output: Path, command):
    verb, *options = command
    journal = output.with_name("out.journal.jsonl")
    with another_process(output):
        with Journal(journal, {"header": "of the first"}) as live:
            live.add("unit", {"noise": 1.0})
        before = journal.read_bytes()
        message = fails(verb, model, "-o", output, *options)
        assert journal.read_bytes() == before
    assert message.startswith(f"{output}: another process is at work on it")
    assert not output.exists()


def test_a_plan_is_packed_by_one_of_them(fails, model, output: Path, uniform: mz.Plan):
    uniform.save(output.with_name("plan.json"))
    with only_here(output), ThreadPoolExecutor() as pool:
        command = ("quantize", model, "-o", output, "--plan", output.with_name("plan.json"))
        assert "another process" in pool.submit(fails, *command).result()


def test_who_comes_when_the_first_is_done_finds_its_result(
    output: Path, monkeypatch: pytest.MonkeyPatch
):
    """It ends between the second's first look at the output and its lock."""
    look = _output.check_free

    def ending(path: Path, *, force: bool) -> None:
        look(path, force=force)
        (path / "model").mkdir(parents=True)

    monkeypatch.setattr(_output, "check_free", ending)
    with pytest.raises(UsageError, match="exists already"), reserved(output, force=False):
        pass


def test_what_appears_meanwhile_is_not_replaced(
    fails, model, output: Path, uniform: mz.Plan, monkeypatch: pytest.MonkeyPatch
):
    uniform.save(output.with_name("plan.json"))
    apply = mz.apply

    def slow(*arguments, **options):
        (output / "theirs").mkdir(parents=True)
        return apply(*arguments, **options)

    monkeypatch.setattr("mezzotint.pipeline.apply", slow)
    command = ("quantize", model, "-o", output, "--plan", output.with_name("plan.json"))
    assert "exists already" in fails(*command)
    assert [each.name for each in output.iterdir()] == ["theirs"]
