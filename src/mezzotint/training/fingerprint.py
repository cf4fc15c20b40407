"""All that the course of a training depends on, to tell one training from another."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from diffusers import DiffusionPipeline

from mezzotint.measuring import model_digest
from mezzotint.models import Sampling, find_denoiser, generation_defaults
from mezzotint.plan import dumps
from mezzotint.training.options import Training
from mezzotint.training.student import Student

OF_STUDENT = frozenset({"plan", "start"})
"""Names in a fingerprint that are known once there is a student."""

LENGTH = frozenset({"options.minutes", "options.steps"})
"""Names in a fingerprint that tell how long a training is."""


def fingerprint(
    student: Student, pipe: DiffusionPipeline, sampling: Sampling, options: Training
) -> dict[str, Any]:
    """JSON values that a message can name: options as they are, and digests of the rest."""
    start = hashlib.sha256()
    for name, parameter in student.parameters().items():
        start.update(name.encode())
        start.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    # The way to the plan makes no difference; some of it tells of the training itself.
    bare = replace(student.plan, context={}, reasons={})
    return {
        **surroundings(pipe, sampling, options),
        "plan": _digest(dumps(bare)),
        "start": start.hexdigest()[:16],
    }


def surroundings(pipe: DiffusionPipeline, sampling: Sampling, options: Training) -> dict[str, Any]:
    """All of a fingerprint but `OF_STUDENT`."""
    images = sampling.to_dict()
    further: dict[str, Any] = {
        name: images[name] for name in ("count", "call_kwargs") if name in images
    }
    return {
        "options": json.loads(json.dumps(options.to_dict())),
        "model": model_digest(find_denoiser(pipe)[1]),
        "prompts": _digest(json.dumps([*sampling.prompts])),
        "sampling": generation_defaults(pipe),
        "scheduler": _digest(json.dumps(dict(pipe.scheduler.config), default=str, sort_keys=True)),
        **further,
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
