"""Uniform plans that ours are compared with, plain and with a constant first token."""

from __future__ import annotations

from typing import Any

import mezzotint as mz
from mezzotint.calibration import observe_structures
from mezzotint.models import find_denoiser, inventory, record_calls, text_readers
from mezzotint.plan import Choice, Plan
from mezzotint.recipes.default_prompts import default_sampling
from mezzotint.runtime import ConstantTokens

#: Format of every input.
ACTIVATION = "int8/token"


def uniform(pipe: Any, weight: str) -> Plan:
    """Every layer in one format."""
    names = mz.uniform_plan(find_denoiser(pipe)[1], weight_bits=4).choices
    return Plan({name: Choice(weight, ACTIVATION) for name in names})


def with_constant_tokens(pipe: Any, plan: Plan) -> Plan:
    """The same formats, with the structure of the layers in which `auto` finds constant tokens."""
    denoiser = find_denoiser(pipe)[1]
    structure = (ConstantTokens(1),)
    readers = dict.fromkeys(text_readers(inventory(denoiser)), structure)
    calls = record_calls(pipe, default_sampling(pipe))
    constant = observe_structures(denoiser, readers, calls).tensors
    return Plan(
        {
            name: choice.with_structures(*structure) if name in constant else choice
            for name, choice in plan.choices.items()
        }
    )
