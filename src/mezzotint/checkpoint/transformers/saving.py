"""`save_pretrained` of packed models of transformers."""

from __future__ import annotations

from functools import partial, wraps
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from mezzotint._stored_dtypes import stored_state
from mezzotint._tensor_digests import file_digests
from mezzotint.checkpoint.diffusers.config import MezzotintConfig


@wraps(PreTrainedModel.save_pretrained)
def save_as_stored(model: Any, save_directory: Any, *args: Any, **kwargs: Any) -> None:
    """Save what stays floating in the dtypes that it came in, and the digest of every tensor.

    The digests are of the files: transformers may store tensors under other names than the
    model's own.
    """
    with stored_state(model):
        type(model).save_pretrained(model, save_directory, *args, **kwargs)
    folder = Path(save_directory)
    digests: dict[str, str] = {}
    for file in sorted(folder.glob("*.safetensors")):
        digests |= file_digests(file)
    config = model.config.quantization_config
    model.config.quantization_config = MezzotintConfig(config.plan, sha256=digests)
    try:
        model.config.save_pretrained(folder)
    finally:
        # They are of one state of the model: nothing of them stays with the model itself.
        model.config.quantization_config = config


def override_saving(model: Any) -> None:
    """Replace `save_pretrained` on this one model; its class stays stock."""
    model.save_pretrained = partial(save_as_stored, model)


def restore_saving(model: nn.Module) -> None:
    """Undo `override_saving`."""
    vars(model).pop("save_pretrained", None)
