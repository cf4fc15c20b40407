"""`mezzotint models` and `mezzotint inspect`."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

import dataclasses
from typing import Any

import typer

from mezzotint.cli._app import app, examples
from mezzotint.cli._arguments import AsJson, Model
from mezzotint.cli._grouped import grouped
from mezzotint.cli._option_groups import Loading
from mezzotint.cli._output import show
from mezzotint.cli._results import expected_speed


@app.command(epilog=examples("models", "models --json"))
def models(as_json: AsJson = False) -> None:
    """List the models that come with the package.

    Their names stand wherever MODEL is asked for. The folders are ordinary diffusers pipelines.
    """
    from mezzotint.cli.tables import models_table
    from mezzotint.models import list_embedded, resolve

    rows = [{"name": name, "folder": resolve(name).location} for name in list_embedded()]
    show(rows, [models_table(rows)], as_json=as_json)


@app.command(epilog=examples("inspect emoji-turbo", "inspect owl-w4a8", "inspect owl-w4a8 --json"))
@grouped
def inspect(model: Model, *, loading: Loading, as_json: AsJson = False) -> None:
    """List the layers of a pipeline's denoisers and packed parts.

    Floating-point layers are listed with their role, weight shape, parameters, and
    multiply-accumulates of one call; packed layers with their formats and the kernel that computes
    them here. A kernel with integer arithmetic is real low-precision execution; `float` arithmetic
    dequantizes first.

    Of a packed denoiser the last line says whether it is faster or slower than the floating one on
    this machine, and which engine to choose. What was measured here before is kept; else one call
    is timed now.
    """
    from mezzotint._printable import printable
    from mezzotint._words import listed
    from mezzotint.checkpoint import packed_plans
    from mezzotint.cli.tables import kernels_table, layers_table, packed_table
    from mezzotint.models import denoising_module, find_denoisers, inventory, quantized_alone
    from mezzotint.runtime import executions, module_bytes

    pipe = loading.load(model)
    names = sorted({*find_denoisers(pipe), *packed_plans(pipe)})
    component, denoiser = listed(names), quantized_alone(denoising_module(pipe, names))
    layers, packed, size = inventory(denoiser), executions(denoiser), module_bytes(denoiser)
    value: dict[str, Any] = {
        "pipeline": type(pipe).__name__,
        "component": component,
        "denoiser": type(denoiser).__name__,
        "bytes": size,
        "layers": [
            dataclasses.asdict(layer)
            | {"parameters": layer.parameters, "quantizable": layer.supported}
            for layer in layers
        ],
        "packed": [execution.to_dict() for execution in packed],
    }
    if (times := expected_speed(pipe)) is not None:
        value["call_times"] = times.to_dict()
    about = f"{type(pipe).__name__}, {component} ({type(denoiser).__name__}), {size:,} bytes"
    tables = [layers_table(layers, f"{about}: {len(layers)} floating-point layers")]
    if packed:
        tables += [packed_table(packed, f"{len(packed)} packed layers"), kernels_table(packed)]
    show(value, tables, as_json=as_json)
    if times is not None and not as_json:
        typer.echo(printable(times.verdict))
