import dataclasses

import pytest
import torch

from mezzotint.runtime.cpu import library
from mezzotint.runtime.cpu.machine import Machine


def test_this_machine_is_always_the_same():
    assert Machine.here() == Machine.here("cpu")
    assert Machine.here().key == Machine.here().key
    assert Machine.here().processor
    assert Machine.here().differences(Machine.here()) == ""


def test_every_field_makes_another_machine():
    here = Machine.here()
    for field in dataclasses.fields(Machine):
        value = getattr(here, field.name)
        other = dataclasses.replace(here, **{field.name: (type(value))()})
        assert other.key != here.key or value == type(value)()
        assert field.name in here.differences(other) or value == type(value)()


def test_differences_say_what_is_where():
    here = Machine.here()
    there = dataclasses.replace(here, threads=here.threads + 1)
    assert here.differences(there) == f"threads is {here.threads + 1} there and {here.threads} here"


def test_the_c_functions_are_part_of_it(monkeypatch: pytest.MonkeyPatch):
    with_them = Machine.here()
    monkeypatch.setattr(library, "library", lambda: None)
    assert Machine.here().functions == "none"
    assert with_them.functions != "none" or with_them == Machine.here()


def test_threads_are_those_of_the_process():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        assert Machine.here().threads == before + 1
    finally:
        torch.set_num_threads(before)
