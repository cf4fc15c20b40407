"""A layer's C functions under sanitizers, by every unit: this processor's, and NEON emulated."""

import shutil
import subprocess
from pathlib import Path

import pytest
import simde_py

from mezzotint.runtime.cpu import native, units

FOLDER = Path(native.__file__).parent
CHECK = Path(__file__).with_name("layer_check.c")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
#: Random layers for each width of weights.
CASES = 15


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no compiler")
    made = tmp_path_factory.mktemp("check") / "check"
    command = [
        compiler, "-O0", "-DEMULATE_NEON", "-ffp-contract=off", f"-I{FOLDER}", "-isystem",
        simde_py.get_include(), *map(str, sorted(FOLDER.glob("*.c"))), str(CHECK), "-o", str(made),
    ]  # fmt: skip
    tried = subprocess.run([*command, *SANITIZERS, "-lm"], capture_output=True, check=False)
    if tried.returncode:
        # A compiler without sanitizers compares sums nevertheless.
        subprocess.run([*command, "-lm"], check=True)
    return made


def checked(program: Path, cases: int) -> list[str]:
    done = subprocess.run([program, str(cases)], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_every_unit_adds_exactly_and_reads_nothing_beyond(program: Path):
    names = checked(program, CASES)
    assert {*names} == {each.name for each in units.units()} | {"NEON dot products"}


@pytest.mark.thorough
def test_every_unit_adds_exactly_in_many_layers(program: Path):
    checked(program, 40 * CASES)
