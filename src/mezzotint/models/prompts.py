"""Prompt files: plain text, one prompt a line."""

from __future__ import annotations

from pathlib import Path

from mezzotint.errors import UsageError


def read_prompts(path: Path) -> tuple[str, ...]:
    """The prompts of a UTF-8 text file, one a line, blank lines skipped, order kept.

    Raises:
        UsageError: the file is missing, unreadable or holds no prompt.
    """
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError as cause:
        raise UsageError(f"{path}: no such prompt file") from cause
    except (OSError, UnicodeDecodeError) as cause:
        raise UsageError(
            f"{path}: cannot be read ({cause}); write one prompt a line in UTF-8"
        ) from cause
    prompts = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not prompts:
        raise UsageError(f"{path}: holds no prompt; write one a line")
    return prompts
