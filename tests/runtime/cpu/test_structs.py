"""Structures are declared alike in the C files and for ctypes."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest

from mezzotint.runtime.attention import fused
from mezzotint.runtime.cpu import bound_layer, grid_passes, native, panels

MODULES = native, grid_passes, panels, bound_layer, fused
FOLDER = Path(native.__file__).parent
WORDS = {"int64_t": ctypes.c_int64, "int32_t": ctypes.c_int32, "float": ctypes.c_float}


def declared_in_c() -> dict[str, list[tuple[str, str]]]:
    """Structure → name and type of every field, `*` for any pointer; of those that Python fills."""
    found, every = {}, ""
    for file in sorted(FOLDER.glob("*.[ch]")):
        text = re.sub(r"/\*.*?\*/", "", file.read_text("utf-8"), flags=re.DOTALL)
        every += text
        for body, name in re.findall(r"typedef struct\s*\{(.*?)\}\s*(\w+);", text, re.DOTALL):
            fields = []
            for line in filter(None, map(str.strip, body.split(";"))):
                kind, names = re.fullmatch(r"(?:const )?(\w+)\s+(.*)", line, re.DOTALL).groups()
                fields += [
                    (each.strip(" *"), "*" if "*" in each else kind) for each in names.split(",")
                ]
            found[name] = fields
    shown = re.findall(r"^SIZE_OF\((\w+)\)", every, re.MULTILINE)
    return {name: fields for name, fields in found.items() if name in (*shown, "CodeRange")}


def declared_for_ctypes() -> dict[str, list[tuple[str, str]]]:
    words = {kind: word for word, kind in WORDS.items()} | {ctypes.c_void_p: "*"}
    return {
        name.lstrip("_"): [(field, words.get(kind, kind.__name__)) for field, kind in each._fields_]
        for module in MODULES
        for name, each in vars(module).items()
        if isinstance(each, type) and issubclass(each, ctypes.Structure)
    }


def test_every_structure_is_declared_twice():
    assert declared_in_c().keys() == declared_for_ctypes().keys()


@pytest.mark.parametrize("name", sorted(declared_for_ctypes()))
def test_fields_have_the_same_names_types_and_order(name: str):
    assert declared_for_ctypes()[name] == declared_in_c()[name]
