"""What recipes have in common: the layers, the journal, the context of their results."""

from __future__ import annotations

import dataclasses

import torch

from mezzotint.errors import ModelError
from mezzotint.models import Call, Layer, inventory
from mezzotint.plan import Encoding
from mezzotint.recipes.base import Job
from mezzotint.sensitivity import fingerprint


def quantizable(job: Job) -> tuple[Layer, ...]:
    """The denoiser's layers that can be packed.

    Raises:
        ModelError: there are none.
    """
    layers = tuple(layer for layer in inventory(job.denoiser) if layer.supported)
    if not layers:
        raise ModelError(f"{job.model}: its denoiser has no Linear or Conv2d layer to quantize")
    return layers


def journal_header(job: Job, calls: tuple[Call, ...], encoding: Encoding) -> dict[str, object]:
    """What scores depend on: the model, its inputs, and how weights are rounded.

    They do not depend on the budget: one journal serves any number of them.
    """
    return {key: value for key, value in context(job).items() if key != "budget"} | {
        "fingerprint": fingerprint(job.denoiser, calls),
        "encoding": encoding.to_dict(),
    }


def context(job: Job) -> dict[str, object]:
    """What the results of a job depend on, as JSON values."""
    return {
        "budget": dataclasses.asdict(job.budget),
        "sampling": job.sampling.to_dict(),
        "torch": torch.__version__,
    }
