"""A float module and a plan in; the same module with packed layers out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from mezzotint._stored_dtypes import keep_notes
from mezzotint.errors import PlanError
from mezzotint.formats import check_finite
from mezzotint.plan import Plan
from mezzotint.runtime.attention import use_fast_attention
from mezzotint.runtime.calibration_values import Calibration
from mezzotint.runtime.pack import check_calibration, check_layer, naming, pack_weight
from mezzotint.runtime.packed import PackedLayer
from mezzotint.runtime.rounded_attention import round_attention
from mezzotint.runtime.smoothing_norms import (
    check_common_exponents,
    check_smoothing_norms,
    smooth_norms,
)
from mezzotint.runtime.structured import StructuredLayer
from mezzotint.runtime.timestep import TimestepReader, check_timed
from mezzotint.runtime.token_check import TokenCheck


def check_plan(module: nn.Module, plan: Plan) -> None:
    """Refuse a plan whose layers do not all exist in `module`, or cannot be quantized.

    Raises:
        PlanError: naming the layer.
        UsageError: layers depend on the timestep, and `module` is called without one.
    """
    modules = dict(module.named_modules())
    for name, choice in plan.choices.items():
        if name not in modules:
            raise PlanError(
                f"the plan names layer {name}, which {type(module).__name__} does not have; "
                "was it made for another model?"
            )
        if choice.quantized and not name:
            raise PlanError(
                f"a bare {type(module).__name__} cannot be replaced in place; "
                "put it into a module, such as nn.Sequential"
            )
        if choice.quantized:
            check_layer(name, modules[name], choice)
    check_smoothing_norms(module, plan)
    if any(choice.timed for choice in plan.choices.values()):
        check_timed(module)


def pack_module(
    module: nn.Module,
    plan: Plan,
    calibration: Calibration | None = None,
    progress: Callable[[str], object] = lambda name: None,
) -> nn.Module:
    """Replace, in place and one at a time, the layers that `plan` quantizes.

    Norms that smooth inputs of layers are multiplied by powers of two. Each float weight is
    released as soon as its packed form exists. All layers, their weights,
    input ranges and calibrated tensors are checked before the first is touched.

    Raises:
        PlanError: a layer of the plan or of the calibration is unknown, or a layer is of an
            unsupported type, or cannot take its choice.
        FormatError: a weight holds NaN, or a static range or a calibrated tensor is missing;
            the layer is named.
    """
    calibration = (calibration or Calibration()).under(plan.choices)
    _check(module, plan, calibration)
    # Formats refuse such weights by themselves, but then some layers would be packed already: what
    # is changed in place is looked through twice, and nothing else is.
    for name in plan.quantized:
        with naming(name):
            check_finite(module.get_submodule(name).get_parameter("weight"))
    return _packed(module, plan, calibration, progress)


def packed_copy(
    module: nn.Module,
    plan: Plan,
    calibration: Calibration | None = None,
    progress: Callable[[str], object] = lambda name: None,
) -> nn.Module:
    """Quantize a copy of the module; the weights that are packed are never duplicated.

    Raises:
        PlanError, FormatError: as `pack_module`.
    """
    calibration = (calibration or Calibration()).under(plan.choices)
    _check(module, plan, calibration)
    weights = [module.get_submodule(name).get_parameter("weight") for name in plan.quantized]
    copied = copy.deepcopy(module, {id(weight): weight for weight in weights})
    return _packed(copied, plan, calibration, progress)


def _check(module: nn.Module, plan: Plan, calibration: Calibration) -> None:
    check_plan(module, plan)
    _check_names(module, calibration)
    for name in plan.quantized:
        check_calibration(name, module.get_submodule(name), plan, calibration)
    check_common_exponents(plan, calibration)


def _check_names(module: nn.Module, calibration: Calibration) -> None:
    """Raise PlanError where `calibration` is for layers that `module` does not have."""
    known = {name for name, _ in module.named_modules()}
    values = calibration.input_ranges, calibration.tensors, calibration.weights, calibration.moments
    for name in (name for each in values for name in each):
        if name not in known:
            raise PlanError(
                f"the calibration names layer {name}, which {type(module).__name__} does not have; "
                "was it found for another model?"
            )
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for name, tensor in calibration.floating.items():
        if name not in parameters or parameters[name].shape != tensor.shape:
            raise PlanError(
                f"the calibration has a {name} of shape {tuple(tensor.shape)}, which "
                f"{type(module).__name__} does not have; was it found for another model?"
            )


def _packed(
    module: nn.Module, plan: Plan, calibration: Calibration, progress: Callable[[str], object]
) -> nn.Module:
    """The module, its layers replaced one by one."""
    for name in plan.quantized:
        layer = module.get_submodule(name)
        weight = layer.get_parameter("weight")
        replace_layer(module, name, pack_weight(name, layer, weight, plan, calibration))
        progress(name)
    with torch.no_grad():
        for name, tensor in calibration.floating.items():
            module.get_parameter(name).copy_(tensor)
    smooth_norms(module, plan, calibration)
    read_timesteps(module)
    share_token_check(module)
    round_attention(module, plan.simulated_attention)
    if plan.quantized:
        use_fast_attention(module)
    return module


def read_timesteps(denoiser: nn.Module) -> None:
    """Let the packed layers that depend on the denoiser's timestep know it.

    Raises:
        UsageError: there are some, and the denoiser is called without one.
    """
    layers = _timed_layers(denoiser)
    if layers:
        _tell(layers, TimestepReader.attach(denoiser))


def share_token_check(denoiser: nn.Module) -> None:
    """Let the packed layers that know first tokens compare each input once, and tell of it once."""
    check = TokenCheck()
    for layer in checking_layers(denoiser):
        layer.token_check = check


def checking_layers(denoiser: nn.Module) -> list[StructuredLayer]:
    """The packed layers that compare first tokens with known ones."""
    layers = (layer for layer in denoiser.modules() if isinstance(layer, StructuredLayer))
    return [layer for layer in layers if layer.structure.known_tokens is not None]


@contextmanager
def reading_timesteps(denoiser: nn.Module) -> Iterator[None]:
    """The same for a while, where packed layers stand in a floating denoiser.

    Raises:
        UsageError: as `read_timesteps`.
    """
    layers = _timed_layers(denoiser)
    if not layers:
        yield
        return
    with TimestepReader.reading(denoiser) as reader:
        _tell(layers, reader)
        yield


def _timed_layers(denoiser: nn.Module) -> list[StructuredLayer]:
    layers = (layer for layer in denoiser.modules() if isinstance(layer, StructuredLayer))
    return [layer for layer in layers if layer.structure.timed]


def _tell(layers: Iterable[StructuredLayer], reader: TimestepReader) -> None:
    for layer in layers:
        layer.reader = reader


def replace_layer(module: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` in the place of the layer called `name`, under all names that the layer has."""
    replace_layers(module, {name: new})


def replace_layers(module: nn.Module, new: Mapping[str, nn.Module]) -> None:
    """Put other modules in the places of layers, under all names that the layers have.

    Args:
        module: around them.
        new: name of a layer → what replaces it.
    """
    by_old = {module.get_submodule(name): each for name, each in new.items()}
    for old, each in by_old.items():
        keep_notes(old, each)
    for parent in tuple(module.modules()):
        # Children as they are stored: the methods that list them leave out repeated ones.
        for child, layer in parent._modules.items():
            if layer in by_old:
                parent._modules[child] = by_old[layer]


def dequantize_module(
    module: nn.Module, dtype_of: Callable[[str], torch.dtype] | None = None
) -> nn.Module:
    """Replace, in place, every packed layer by a stock one with the dequantized weight.

    A layer of constant tokens becomes a plain Linear that computes them like all others. The
    module's timestep is read no longer, and its attention is torch's own and not rounded.

    Args:
        module: with packed layers.
        dtype_of: dtype of a layer without bias, by its name; by default that of the module's first
            floating parameter. A layer with bias takes the dtype of that.
    """
    floating = (p.dtype for p in module.parameters() if p.is_floating_point())
    first = next(floating, torch.float32)
    for name, layer in packed_layers(module).items():
        replace_layer(module, name, layer.to_float(first if dtype_of is None else dtype_of(name)))
    reader = TimestepReader.of(module)
    if reader is not None:
        reader.detach()
    round_attention(module, None)
    use_fast_attention(module, enabled=False)
    return module


def packed_layers(module: nn.Module) -> dict[str, PackedLayer]:
    """Every packed layer by its dotted name; the parts of a layer are not listed beside it."""
    found: dict[str, PackedLayer] = {}
    packed: set[str] = set()
    for name, layer in module.named_modules():
        if isinstance(layer, PackedLayer):
            packed.add(name)
            if not name or name.rpartition(".")[0] not in packed:
                found[name] = layer
    return found
