"""YAML and JSON documents whose mappings name nothing twice. Nothing but plain values is built."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from typing_extensions import override

from mezzotint._files import RepeatedKeyError, distinct
from mezzotint.errors import UsageError, first_line

YAML_SUFFIXES = (".yaml", ".yml")


def is_json(path: Path) -> bool:
    """True where a file is JSON by its name."""
    return path.suffix.lower() == ".json"


def parse(path: Path) -> Any:
    """Parse a file, as JSON if it is named so and else as YAML.

    Raises:
        UsageError: The file is missing, malformed, or has a mapping with the same key twice;
            names the file, and the line or the key.
    """
    try:
        text = path.read_text("utf-8")
        if is_json(path):
            return json.loads(text, object_pairs_hook=distinct)
        return _yaml(text)
    except FileNotFoundError as cause:
        raise UsageError(f"{path}: no such file") from cause
    except (OSError, UnicodeDecodeError) as cause:
        raise UsageError(f"{path}: cannot be read ({cause})") from cause
    except RepeatedKeyError as cause:
        raise UsageError(f"{path}: {cause} occurs twice; keep one") from cause
    except json.JSONDecodeError as cause:
        raise UsageError(f"{path}: not valid JSON (line {cause.lineno}: {cause.msg})") from cause
    except yaml.MarkedYAMLError as cause:
        line = f"line {cause.problem_mark.line + 1}: " if cause.problem_mark else ""
        raise UsageError(f"{path}: not valid YAML ({line}{cause.problem})") from cause
    except (yaml.YAMLError, ValueError, RecursionError) as cause:
        # Characters that YAML forbids, a number too long, or deep nesting.
        raise UsageError(f"{path}: not usable ({cause})") from cause


def _yaml(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506  (derives from the safe loader)
    except (yaml.YAMLError, RepeatedKeyError, RecursionError):
        raise
    except Exception as cause:  # its constructors trip over values that their tags do not fit
        raise ValueError(f"a value is not of its tag: {first_line(cause)}") from cause


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, without repeated keys."""

    @override
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # Merged keys (`<<`), soon put among a mapping's own, may be overridden by them.
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        mapping = super().construct_mapping(node, deep)
        seen = set()
        for key_node in own:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise RepeatedKeyError(f"{key!r} (line {key_node.start_mark.line + 1})")
            seen.add(key)
        return mapping


# YAML 1.2 and Python write small numbers as 1e-05, which YAML 1.1 takes for a word.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)
