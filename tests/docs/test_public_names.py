"""Everything that the package exports is explained."""

import importlib
import inspect
import pkgutil

import pytest

import mezzotint

PACKAGES = ["mezzotint"] + [
    module.name
    for module in pkgutil.iter_modules(mezzotint.__path__, "mezzotint.")
    if not module.name.rpartition(".")[2].startswith("_")
]


def public():
    for package in PACKAGES:
        module = importlib.import_module(package)
        yield from (f"{package}:{name}" for name in getattr(module, "__all__", ()))


@pytest.mark.parametrize("name", list(public()))
def test_every_public_function_and_class_has_a_docstring(name):
    module, _, attribute = name.partition(":")
    value = getattr(importlib.import_module(module), attribute)
    if inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value):
        # A dataclass without a docstring gets its signature for one.
        assert value.__doc__
        assert not value.__doc__.startswith(f"{attribute}(")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_has_a_docstring(package):
    assert importlib.import_module(package).__doc__
