"""The command as a process of its own."""

import json
import signal
import subprocess
import sys
import time
from importlib import metadata

import pytest
import typer

import mezzotint
from mezzotint.cli import app
from mezzotint.cli._app import interrupt_again

COMMAND = [sys.executable, "-m", "mezzotint"]


#: Prints JSON: which of the libraries that take seconds to import each command line imports, beside
#: those before it, and how many lines it prints.
IMPORTED = """
import contextlib, io, json, sys
from mezzotint.cli import main
found = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["mezzotint", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        main()
    heavy = {"torch", "diffusers", "transformers", "numpy", "scipy", "PIL"} & sys.modules.keys()
    found.append([sorted(heavy), len(shown.getvalue().splitlines())])
print(json.dumps(found))
"""


def texts(command, path=()):
    """Command line → help of a command and of all beneath it."""
    yield [*path, "--help"]
    for name, child in getattr(command, "commands", {}).items():
        yield from texts(child, (*path, name))


LINES = [["--version"], *map(list, texts(typer.main.get_command(app)))]


@pytest.fixture(scope="module")
def printed():
    """For every command line, the heavy libraries it imports and the lines it prints."""
    command = [sys.executable, "-c", IMPORTED, json.dumps(LINES)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(zip(map(tuple, LINES), json.loads(result.stdout), strict=True))


@pytest.mark.parametrize("arguments", LINES, ids=" ".join)
def test_help_and_version_import_no_heavy_library(printed, arguments):
    heavy, lines = printed[tuple(arguments)]
    assert heavy == []
    assert lines > 0


def test_the_version_is_all_that_is_printed():
    result = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"{mezzotint.__version__}\n"
    assert mezzotint.__version__ == metadata.version("mezzotint")


def test_help_lists_the_verbs():
    result = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True)
    assert "quantize" in result.stdout
    assert result.stderr == ""


def test_an_interrupted_run_is_resumed(run, model, tmp_path):
    # Many prompts: the run must still be measuring when the signal comes.
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("owl\n" * 64)
    output, journal = tmp_path / "out", tmp_path / "out.journal.jsonl"
    command = ["quantize", str(model), "-o", str(output), "--prompts", str(prompts)]
    command += ["--formats", "int3/channel,int8/channel", "--regret", "9", "--no-exchanges"]
    process = subprocess.Popen([*COMMAND, *command], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and len(lines(journal)) < 3:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "--resume" in errors.splitlines()[-1]
    assert not output.exists()
    assert len(lines(journal)) >= 3

    assert run(*command, "--resume").exit_code == 0
    assert output.is_dir()
    assert not journal.exists()


def test_an_interruption_within_a_finalizer_is_not_lost(monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", interrupt_again)

    class Finalized:
        def __del__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # noqa: PT012  (it comes later)
        Finalized()
        for _ in range(500):
            time.sleep(0.01)


def lines(path):
    return path.read_text().splitlines() if path.exists() else []
