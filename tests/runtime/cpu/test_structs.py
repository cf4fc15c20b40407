"""Structures are declared alike in the C files and for ctypes."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest
import torch

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


def numbers_in_c(file: str) -> dict[str, int]:
    """Name → number, of all enumerations of a file."""
    found: dict[str, int] = {}
    for body in re.findall(r"enum\s*\{(.*?)\}", (FOLDER / file).read_text("utf-8"), re.DOTALL):
        value = -1
        for each in body.split(","):
            name, _, given = map(str.strip, each.partition("="))
            value = value + 1 if not given else int(given) if given.isdecimal() else value
            found[name] = value
    return found


def test_numbers_that_both_know_are_the_same():
    shared, attention, layer = map(numbers_in_c, ("common.h", "attention.h", "layer.h"))
    dtypes = {torch.float32: shared["FLOAT32"], torch.bfloat16: shared["BFLOAT16"]}
    assert dtypes == native.DTYPES == panels._SCALE_DTYPES
    assert {each.name: attention[each.name] for each in fused.Unit} == {
        each.name: each.value for each in fused.Unit
    }
    assert {
        torch.bool: attention["BOOL_MASK"],
        torch.float32: attention["FLOAT32_MASK"],
        torch.bfloat16: attention["BFLOAT16_MASK"],
    } == fused._MASKS
    assert layer["PANEL"] == panels.PANEL
    assert (layer["AFFINE"], layer["TWO_LEVELS"]) == (panels._AFFINE, panels._TWO_LEVELS)
    assert numbers_in_c("transpose.h")["TILE"] == native._PIXELS
