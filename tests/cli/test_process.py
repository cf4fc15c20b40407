"""The command as a process of its own."""

import signal
import subprocess
import sys
import time

import pytest

from mezzotint.cli._app import interrupt_again

COMMAND = [sys.executable, "-m", "mezzotint"]


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
