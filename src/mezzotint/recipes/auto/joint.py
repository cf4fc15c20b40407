"""Options of the default recipe that several components together cannot have."""

from __future__ import annotations

from dataclasses import replace

from mezzotint._words import listed
from mezzotint.errors import UsageError
from mezzotint.models import Joint, component_names
from mezzotint.recipes.auto.options import Auto
from mezzotint.recipes.auto.step_inputs import may_be_per_step
from mezzotint.recipes.job import Job


def joint_options(job: Job, options: Auto) -> Auto:
    """The options as several components together can have them.

    With text encoders no first token is constant: quantized, they give another.

    Raises:
        UsageError: naming the option.
    """
    names = component_names(job.denoiser)
    if not names:
        return options
    refused = {
        "labels": (options.labels is not None, "are of one denoiser"),
        "tune_minutes": (options.tuning is not None, "trains one denoiser"),
        "smoothing_norms": (options.smoothing_norms, "is for one denoiser"),
        "inputs": (
            may_be_per_step(job.budget, options),
            "have scales for the timesteps of one denoiser",
        ),
    }
    for option, (given, why) in refused.items():
        if given:
            raise UsageError(
                f"{option}: {why}, and {listed(names)} are quantized together; leave it out"
            )
    encodes = isinstance(job.denoiser, Joint) and job.denoiser.texts is not None
    return replace(options, bos=False) if encodes else options
