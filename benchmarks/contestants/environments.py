"""Virtual environments: one per tool, made on first use from pinned requirements."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

REQUIREMENTS = Path(__file__).parent / "requirements"
CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints-dev.txt"
DONE = ".installed"


@dataclass(frozen=True)
class Environment:
    """The environment of one tool; without a name, the one that runs the benchmark."""

    name: str = ""
    cache: Path = Path(".cache")

    @property
    def folder(self) -> Path:
        return self.cache.resolve() / "peers" / self.name

    def python(self) -> str:
        """The interpreter's path."""
        if not self.name:
            return sys.executable
        windows = sys.platform == "win32"
        return str(self.folder / ("Scripts/python.exe" if windows else "bin/python"))

    def make(self) -> str | None:
        """Install what is missing; the reason where that fails."""
        if not self.name:
            return None
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        # speed.py and peers.py may want it at the same time.
        with FileLock(self.folder.with_suffix(".lock")):
            wanted = _fingerprint(self.name)
            done = self.folder / DONE
            if done.is_file() and done.read_text() == wanted:
                return None
            print(f"installing {self.name} into {self.folder}", flush=True)
            try:
                self._install()
            except subprocess.CalledProcessError as cause:
                output = (cause.stderr or cause.output or "").strip()
                last = (output.splitlines() or [str(cause)])[-1]
                return f"cannot be installed: {last}"[:300]
            done.write_text(wanted)
            return None

    def _install(self) -> None:
        if not Path(self.python()).exists():
            venv.create(self.folder, with_pip=True)
        requirements = REQUIREMENTS / f"{self.name}.txt"
        subprocess.run(  # noqa: S603  (our own command)
            [self.python(), "-m", "pip", "install", "--quiet", "-r", str(requirements)],
            capture_output=True,
            text=True,
            check=True,
        )


def _fingerprint(name: str) -> str:
    files = (REQUIREMENTS / f"{name}.txt", REQUIREMENTS / "base.txt", CONSTRAINTS)
    digest = hashlib.sha256(sys.version.encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()
