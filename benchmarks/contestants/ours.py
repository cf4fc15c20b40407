"""mezzotint itself: packed once, then loaded as any user would."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

import mezzotint as mz
from mezzotint.calibration import input_ranges
from mezzotint.checkpoint import mark_quantized
from mezzotint.engines import engine_executions, engine_named
from mezzotint.models import Call
from mezzotint.plan import Choice, Plan
from mezzotint.runtime import Calibration, module_bytes, pack_module

from .messages import CannotRunError, Inputs, Loaded, Request
from .torch_floating import load_module, loaded


def prepare(request: Request, calibration: list[Inputs]) -> None:
    """Pack every linear layer and convolution alike, and save."""
    options = request.options
    module = load_module(replace(request, dtype="float32"))
    names = mz.uniform_plan(module, weight_bits=8).choices
    choice = Choice(options["weight"], options.get("activation", "float"))
    plan = Plan(dict.fromkeys(names, choice))
    known = Calibration()
    if choice.static:
        calls = [Call((), inputs) for inputs in calibration]
        known = Calibration(input_ranges=input_ranges(module, plan.quantized, calls, momentum=None))
    with torch.no_grad():
        pack_module(module, plan, known)
    saved: Any = module.to(request.torch_dtype)
    mark_quantized(saved, plan)
    saved.save_pretrained(request.prepared_folder)


def load(request: Request, calibration: list[Inputs]) -> Loaded:
    module = load_module(replace(request, folder=request.prepared))
    stored = module_bytes(module)
    versions = {"mezzotint": mz.__version__}
    if request.options.get("engine"):
        engine = engine_named(request.options["engine"])
        why = engine.refuse(module)
        if why is not None:
            raise CannotRunError(why)
        module = engine.attach(module).eval()
    found = loaded(module, request, stored_bytes=stored, versions=versions)
    found.describe = partial(kernels, module)
    return found


def kernels(module: nn.Module) -> str:
    """Count of layers per kernel."""
    counts = Counter(f"{one.kernel} ({one.arithmetic})" for one in engine_executions(module))
    return ", ".join(f"{count} × {kernel}" for kernel, count in counts.items())
