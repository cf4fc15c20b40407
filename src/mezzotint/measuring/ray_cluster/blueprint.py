"""Directions by which a worker builds the model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import ray
import torch
from diffusers import DiffusionPipeline
from torch import nn

from mezzotint.errors import CheckpointError, ExecutorError, ModelError, first_line
from mezzotint.measuring.identity import component_digests
from mezzotint.measuring.original import Original
from mezzotint.models import (
    component_names,
    denoising_module,
    device_of,
    load_pipeline,
    with_generation_defaults,
)

_SPARE = 512 * 2**20
"""Bytes that a worker takes beside the model."""


class UnlikeSourceError(Exception):
    """The source is not there, or gives another model than the driver has."""


@dataclass(frozen=True, eq=False)
class Blueprint:
    """A model to be built: after its source, or else by a copy from the object store.

    Attributes:
        model: the driver's pipeline, or its bare denoiser; None for workers.
        source: name, folder or Hub id of the pipeline; None to take the copy.
        digests: of the pipeline's components, which what is built has to have.
        dtype: of everything that is not packed.
        device: `cpu` or `cuda`.
        threads: of torch.
        stored: the reference to the copy; empty where there is none.
        components: of the pipeline that a joint module is of; None for its one denoiser.
    """

    model: DiffusionPipeline | nn.Module | None
    source: str | None
    digests: Mapping[str, str]
    dtype: torch.dtype
    device: str
    threads: int
    stored: tuple[Any, ...] = field(default=())
    components: tuple[str, ...] | None = None

    @classmethod
    def of(cls, original: Original, threads: int) -> Blueprint:
        """Directions for the model of this process.

        Raises:
            ExecutorError: it has no source, and cannot be copied to another process.
        """
        device = device_of(original.denoiser).type
        pipe = original.pipe
        if pipe is None:
            return cls(original.denoiser, None, {}, torch.float32, device, threads).by_value()
        names = component_names(original.denoiser) or None
        if not pipe.name_or_path:
            return cls(pipe, None, {}, pipe.dtype, device, threads, components=names).by_value()
        digests = component_digests(pipe)
        source = pipe.name_or_path
        return cls(pipe, source, digests, pipe.dtype, device, threads, components=names)

    @property
    def need(self) -> dict[str, float]:
        """Share of its machine that a worker takes, by Ray's names of resources."""
        whole = self.model
        modules = [whole] if isinstance(whole, nn.Module) else [*vars(whole).values()]
        held = sum(
            tensor.nbytes
            for module in modules
            if isinstance(module, nn.Module)
            for tensor in (*module.parameters(), *module.buffers())
        )
        graphics = {"GPU": 1.0} if self.device == "cuda" else {}
        return {"CPU": float(self.threads), "memory": 2.0 * held + _SPARE, **graphics}

    def by_value(self) -> Blueprint:
        """The same model by a copy in the object store.

        Raises:
            ExecutorError: the model cannot be copied to another process.
        """
        model = self.model
        if isinstance(model, DiffusionPipeline):
            # Its folder, where the defaults of its call are, may not be there.
            model = with_generation_defaults(copy.copy(model))
        try:
            stored = ray.put(model)
        except Exception as cause:  # whatever a model's own parts may raise
            raise ExecutorError(
                f"executor ray: the model cannot be sent to workers ({first_line(cause)}); save "
                "it with save_pretrained and load it from there, or measure in this process"
            ) from cause
        return replace(self, source=None, stored=(stored,))

    def sent(self) -> Blueprint:
        """The part that workers are given."""
        return replace(self, model=None)

    def built(self) -> tuple[DiffusionPipeline | None, nn.Module]:
        """The pipeline, where there is one, and its denoiser; for workers.

        Raises:
            UnlikeSourceError: the source is not there, or gives another model.
        """
        if self.source is not None:
            pipe = self._loaded(self.source)
            return pipe, denoising_module(pipe, self.components)
        (whole,) = ray.get(list(self.stored))
        if isinstance(whole, nn.Module):
            return None, whole
        return whole, denoising_module(whole, self.components)

    def _loaded(self, source: str) -> DiffusionPipeline:
        try:
            pipe = load_pipeline(source, dtype=self.dtype, device=self.device)
        except (ModelError, CheckpointError) as cause:
            raise UnlikeSourceError(str(cause)) from cause
        found = component_digests(pipe)
        names = [name for name, digest in self.digests.items() if found.get(name) != digest]
        if names:
            raise UnlikeSourceError(f"{source}: has another {', '.join(names)}")
        return pipe
