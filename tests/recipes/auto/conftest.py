"""Quick runs of the default recipe on a small module."""

from __future__ import annotations

from typing import Any

import pytest

import mezzotint as mz
from tests.recipes.auto.denoisers import Chain, calls

FORMATS = ("int2/channel", "lut3/channel", "int4/channel", "int6/channel", "int8/channel")


@pytest.fixture
def run():
    """Quantize a `Chain`, or another module, under some options."""

    def quantized(
        budget: mz.Budget | None = None,
        *,
        module: Any = None,
        on: Any = None,
        files: dict[str, Any] | None = None,
        **options: Any,
    ) -> mz.ModuleResult:
        recipe = mz.Auto(**{"formats": FORMATS, "regret": 1e9, **options})
        subject = Chain().eval() if module is None else module
        given = calls() if on is None else on
        return mz.quantize_module(subject, given, recipe, budget or mz.Budget(5), **(files or {}))

    return quantized
