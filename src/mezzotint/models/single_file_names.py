"""Names of the tensors in a single file, in its authors' layout: of which component each is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.loaders import FromOriginalModelMixin, single_file_utils
from diffusers.models.autoencoders.vae import AutoencoderMixin
from torch import Tensor

_AUTOENCODER = tuple(single_file_utils.LDM_VAE_KEYS)

_T5 = ("text_encoders.t5xxl.",)

_CLIP = {
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0.", "text_encoders.clip_l."),
    "text_encoder_2": ("conditioner.embedders.1.", "text_encoders.clip_g."),
}
"""Component → beginnings of its tensors' names: of Stable Diffusion 1 and 2, XL, 3."""

_ANY_CLIP = tuple(prefix for each in _CLIP.values() for prefix in each)

Placeholders = Mapping[str, Tensor]
"""Name → tensor without values, of a file's header."""


def holds(tensors: Placeholders, kind: type[Any]) -> bool:
    """True if a file of these tensors holds a model of that class.

    A file of a denoiser alone has no other names than its layers'.
    """
    if issubclass(kind, AutoencoderMixin):
        return any(name.startswith(_AUTOENCODER) for name in tensors)
    if issubclass(kind, FromOriginalModelMixin):
        return True
    if kind.__name__.startswith("T5"):
        return bool(single_file_utils.is_t5_in_single_file(tensors))
    return bool(single_file_utils.is_clip_model_in_single_file(kind, tensors))


def elements(tensors: Placeholders) -> Counter[torch.dtype]:
    """Dtype → number of elements."""
    counts: Counter[torch.dtype] = Counter()
    for tensor in tensors.values():
        counts[tensor.dtype] += tensor.numel()
    return counts


def tensors_of(tensors: Placeholders, component: str, kind: type[Any]) -> Placeholders:
    """The tensors of one component; all where none has such a name.

    Args:
        tensors: of the file.
        component: its name in the pipeline.
        kind: its class.
    """
    if issubclass(kind, AutoencoderMixin):
        own = _beginning(tensors, _AUTOENCODER)
    elif issubclass(kind, FromOriginalModelMixin):
        others = _beginning(tensors, (*_AUTOENCODER, *_T5, *_ANY_CLIP))
        own = {name: each for name, each in tensors.items() if name not in others}
    elif kind.__name__.startswith("T5"):
        own = _beginning(tensors, _T5)
    else:  # the refiner's second encoder stands where others have their first
        own = _beginning(tensors, _CLIP.get(component, ())) or _beginning(tensors, _ANY_CLIP)
    return own or tensors


def _beginning(tensors: Placeholders, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: each for name, each in tensors.items() if name.startswith(prefixes)}
