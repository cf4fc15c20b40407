"""Choice of the components of a pipeline that are quantized."""

from __future__ import annotations

from collections.abc import Sequence

from diffusers import DiffusionPipeline
from torch import nn
from transformers import PreTrainedModel

from mezzotint._words import listed
from mezzotint.errors import ModelError, UsageError
from mezzotint.models.denoiser import find_denoisers
from mezzotint.models.inner_pipelines import inner_pipelines
from mezzotint.models.joint import Joint, decodes
from mezzotint.models.text_inputs import TextInputs


def denoising_module(pipe: DiffusionPipeline, components: Sequence[str] | None = None) -> nn.Module:
    """The pipeline's denoiser; where it has several, or components are named, all as one module.

    Where text encoders are named, the denoisers that they are measured by are run in it, be they
    quantized or not.

    Args:
        pipe: the pipeline.
        components: names of those wanted: denoisers, text encoders, autoencoders; by default all
            denoisers.

    Raises:
        ModelError: the pipeline has no denoiser.
        UsageError: a component is unknown, cannot be quantized, or is named twice; or none is.
    """
    denoisers = find_denoisers(pipe)
    if not denoisers:
        raise ModelError(
            f"{type(pipe).__name__} has no denoiser: none of its components "
            f"({', '.join(pipe.components)}) is a diffusers model that takes a timestep"
        )
    if components is None:
        components = tuple(denoisers)
    found = _quantizable(pipe)
    _check_names(pipe, components, found)
    # By name, so that neither the order asked for nor that of the pipeline says anything.
    wanted = {name: part for name, part in sorted(found.items()) if name in components}
    if wanted.keys() == denoisers.keys() and len(wanted) == 1:
        return next(iter(wanted.values()))
    encoders = [name for name, part in wanted.items() if isinstance(part, PreTrainedModel)]
    if not encoders:
        return Joint(wanted)
    if inner_pipelines(pipe):
        raise UsageError(
            f"components: {listed(encoders)}: run in a pipeline within {type(pipe).__name__}, "
            "whose outputs another one is given, and cannot be measured there; name denoisers and "
            f"autoencoders alone, such as {listed(list(denoisers))}"
        )
    texts = TextInputs(pipe, encoders)
    return Joint(dict(sorted({**wanted, **denoisers}.items())), tuple(wanted), texts)


def _quantizable(pipe: DiffusionPipeline) -> dict[str, nn.Module]:
    """Component → module of all that may be quantized, in the pipeline's order."""
    denoisers = find_denoisers(pipe)
    return {
        name: part
        for name, part in pipe.components.items()
        if name in denoisers or isinstance(part, PreTrainedModel) or decodes(part)
    }


def _check_names(
    pipe: DiffusionPipeline, components: Sequence[str], found: dict[str, nn.Module]
) -> None:
    if isinstance(components, str) or not components or len({*components}) < len(components):
        raise UsageError(
            f"components: is {components!r}; give names, each once, such as {list(found)!r}"
        )
    for name in components:
        if name not in found:
            raise UsageError(
                f"components: {name!r} is nothing of this {type(pipe).__name__} that can be "
                f"quantized; it has {listed(list(found))}"
            )
