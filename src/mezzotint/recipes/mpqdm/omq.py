"""Outlier-driven mixed quantization of every layer, on samples of its smoothed input."""

from __future__ import annotations

import torch

from mezzotint._progress import track
from mezzotint.calibration import input_sizes
from mezzotint.calibration.watching import layer_of
from mezzotint.plan import Plan
from mezzotint.recipes.mpqdm.method import Method
from mezzotint.recipes.outlier_channels import Mixture, choose_mixture
from mezzotint.recipes.sampled_inputs import InputRounding, sampled_inputs
from mezzotint.runtime import Calibration, operation_of, own_tensors, shape_of
from mezzotint.runtime.composition import part_weights


@torch.no_grad()
def mixed_widths(method: Method, plan: Plan, calibration: Calibration) -> dict[str, Mixture]:
    """Layer → how many of its channels take a bit more, of all that are no exception.

    Args:
        method: at work.
        plan: of uniform widths, in the structures that the layers will have.
        calibration: of it.
    """
    study, search = method.study, method.search
    denoiser, bits = study.job.denoiser, method.widths.weight
    choices = {layer.name: plan[layer.name] for layer in method.narrow}
    sizes = input_sizes(denoiser, study.graph, choices)
    found: dict[str, Mixture] = {}
    samples = sampled_inputs(denoiser, choices, study.calls, calibration, sizes)
    for name, inputs in track(samples, "Mixing widths", len(choices)):
        layer, choice = layer_of(denoiser, name), choices[name]
        shape, weight = shape_of(layer), layer.weight.detach()
        known = calibration.tensors.get(name, {})
        own = own_tensors(choice.structures, weight, shape, known)
        (smoothed,) = part_weights(weight, choice.structures, shape, own)
        rounding = InputRounding.of(name, choice, shape, inputs.timesteps, calibration)
        found[name] = choose_mixture(
            smoothed.float(), inputs.x, bits, rounding, search, operation_of(layer)
        )
    return found
