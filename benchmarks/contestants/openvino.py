"""OpenVINO: the plain graph, and those that its own tool NNCF quantizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import openvino as ov
import torch
from torch import Tensor

from .flat_arguments import FlatDenoiser, flat_tensors
from .messages import CannotRunError, Inputs, Loaded, Request
from .torch_floating import load_module

GRAPH = "graph.xml"


def prepare(request: Request, calibration: list[Inputs]) -> None:
    """Convert, quantize, and write the graph; floating weights are stored in 16 bits."""
    if request.device != "cpu":
        raise CannotRunError("is compared on the CPU only")
    module = load_module(replace(request, dtype="float32"))
    graph = converted(module, calibration[0])
    way = request.options["way"]
    if way != "plain":
        graph = quantized(graph, way, request.options, calibration)
    folder = request.prepared_folder
    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(graph, folder / GRAPH, compress_to_fp16=True)


def converted(module: torch.nn.Module, example: Inputs) -> ov.Model:
    """A graph that takes any batch, and the other sizes as in the example."""
    tensors = flat_tensors(example)
    with torch.no_grad():
        flat = FlatDenoiser(module, example)
        graph = ov.convert_model(flat, example_input=tuple(tensors.values()))
    shapes = {}
    for port, (name, tensor) in zip(graph.inputs, tensors.items(), strict=True):
        port.get_tensor().set_names({name})
        shapes[name] = ov.PartialShape([-1, *tensor.shape[1:]])
    graph.reshape(shapes)
    return graph


def quantized(graph: ov.Model, way: str, options: Any, calibration: list[Inputs]) -> ov.Model:
    import nncf  # noqa: PLC0415  (slow to import, and not needed for the plain graph)

    names = tuple(flat_tensors(calibration[0]))
    samples = nncf.Dataset([arrays(inputs, names) for inputs in calibration])
    if way == "static":
        advanced = nncf.AdvancedQuantizationParameters(
            disable_bias_correction=not options.get("bias_correction", False)
        )
        return nncf.quantize(
            graph,
            samples,
            subset_size=len(calibration),
            model_type=nncf.ModelType.TRANSFORMER,
            advanced_parameters=advanced,
        )
    mode = getattr(nncf.CompressWeightsMode, options["mode"])
    arguments: dict[str, Any] = {}
    if not options["mode"].startswith("INT8"):
        arguments = {"group_size": options["group"], "all_layers": True, "ratio": 1.0}
        arguments |= dict(options.get("data_aware", {}))
        if options.get("data_aware"):
            arguments |= {"dataset": samples, "subset_size": len(calibration)}
    return nncf.compress_weights(graph, mode=mode, **arguments)


def arrays(inputs: Inputs, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Floating tensors in float32: the graph's own inputs stay so whatever it computes in."""
    tensors = flat_tensors(inputs)
    return {
        name: (t.float() if t.is_floating_point() else t).cpu().contiguous().numpy()
        for name, t in ((name, tensors[name]) for name in names)
    }


def load(request: Request, calibration: list[Inputs]) -> Loaded:
    path = request.prepared_folder / GRAPH
    runner = Runner(path, request)
    note = "" if request.options["way"] == "plain" else "NNCF"
    return Loaded(runner, path.with_suffix(".bin").stat().st_size, note=note, versions=versions())


def versions() -> dict[str, str]:
    import importlib.metadata  # noqa: PLC0415

    return {name: importlib.metadata.version(name) for name in ("openvino", "nncf")}


class Runner:
    """The graph, compiled anew where the batch changes; only the latest is kept."""

    def __init__(self, path: Any, request: Request) -> None:
        self.core = ov.Core()
        self.path = path
        hint = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}[request.dtype]
        self.properties = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": request.threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.names: tuple[str, ...] = ()
        self.batch = 0
        self.compiled: Any = None

    def __call__(self, inputs: Inputs) -> Tensor:
        batch = len(next(iter(flat_tensors(inputs).values())))
        if batch != self.batch:
            self._compile(batch)
        result = self.compiled(list(arrays(inputs, self.names).values()))[0]
        return torch.from_numpy(np.array(result))

    def _compile(self, batch: int) -> None:
        self.compiled = None
        graph = self.core.read_model(self.path)
        # The compiled graph's inputs have further names, but the same order.
        self.names = tuple(port.get_any_name() for port in graph.inputs)
        graph.reshape(
            {
                index: ov.PartialShape([batch, *list(port.get_partial_shape())[1:]])
                for index, port in enumerate(graph.inputs)
            }
        )
        self.compiled = self.core.compile_model(graph, "CPU", self.properties)
        self.batch = batch
