"""Compiles the C files while the package is built; without a compiler it does without them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags

FOLDER = Path("src/mezzotint/runtime/cpu")
#: No contraction into fused multiply-adds: results are torch's, bit for bit.
FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off",
         "-fvisibility=hidden", "-shared", "-fPIC")  # fmt: skip


class CustomBuildHook(BuildHookInterface[Any]):
    """Called by hatchling for wheels and editable installations."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and make the wheel one for this platform."""
        if self.target_name != "wheel":
            return
        library = Path(self.root) / FOLDER / f"_kernels.{suffix()}"
        why = compile_kernels(sorted((Path(self.root) / FOLDER).glob("*.c")), library)
        if why is not None:
            self.app.display_warning(f"mezzotint is built without its C functions: {why}")
            return
        build_data["pure_python"] = False
        # The library knows nothing of Python: one wheel per platform serves every version.
        build_data["tag"] = f"py3-none-{next(sys_tags()).platform}"
        build_data["artifacts"].append(str(FOLDER / library.name))


def suffix() -> str:
    """Of shared libraries on this platform."""
    return {"win32": "dll", "darwin": "dylib"}.get(sys.platform, "so")


def compile_kernels(sources: Sequence[Path], library: Path) -> str | None:
    """Compile; or say why not."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc") or ["cc"]
    if shutil.which(compiler[0]) is None:
        return f"there is no compiler {compiler[0]!r}"
    command = [*compiler, *FLAGS, *map(str, sources), "-o", str(library), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return None if done.returncode == 0 else f"{shlex.join(command)}: {done.stderr.strip()}"
