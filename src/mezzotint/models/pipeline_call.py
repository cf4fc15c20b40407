"""Arguments of a pipeline's call: those it takes, those its folder prescribes, those given."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from diffusers import DiffusionPipeline
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt

from mezzotint._files import read_json, validated
from mezzotint.errors import ModelError, UsageError
from mezzotint.models.denoiser import find_denoiser
from mezzotint.models.home import home_of
from mezzotint.plan import SET_BY_SAMPLING, Sampling

GENERATION_FILE = "generation.json"
"""Optional file in a pipeline's folder: defaults for the arguments of the pipeline's call."""

_CLASSES = ("num_embeds_ada_norm", "num_class_embeds")
"""Fields of a denoiser's configuration that tell the number of its classes."""

_INPUTS = ("image", "mask_image", "control_image", "control_mask", "mask", "video", "pose_video")
"""Arguments without which some pipelines fail, although their signatures have a default of None."""


class GenerationDefaults(BaseModel):
    """The content of `generation.json`; any further field is an argument of the pipeline's call."""

    model_config = ConfigDict(extra="allow", frozen=True)

    num_inference_steps: PositiveInt | None = None
    guidance_scale: NonNegativeFloat | None = None


def generation_defaults(pipe: DiffusionPipeline) -> dict[str, Any]:
    """Call arguments that the pipeline's folder prescribes; empty without `generation.json`.

    Raises:
        ModelError: the file is not valid JSON, or a field has a wrong value or names no argument
            of the pipeline's call.
    """
    home = home_of(pipe)
    path = home / GENERATION_FILE if home is not None else None
    if path is None or not path.is_file():
        return {}
    defaults = validated(GenerationDefaults, read_json(path, ModelError), path, ModelError)
    fields = defaults.model_dump(exclude_unset=True)
    for field in fields:
        if field in SET_BY_SAMPLING:
            raise ModelError(f"{path}: field {field}: is set by sampling; remove it")
        if field not in call_parameters(pipe):
            kind = type(pipe).__name__
            raise ModelError(f"{path}: field {field}: {kind} takes no such argument; remove it")
    return fields


def default_steps(pipe: DiffusionPipeline) -> int:
    """Denoising steps that the pipeline takes where the caller says nothing; 50 where unknown.

    Raises:
        ModelError: `generation.json` is malformed.
    """
    named = generation_defaults(pipe).get("num_inference_steps")
    parameter = call_parameters(pipe).get("num_inference_steps")
    usual = None if parameter is None else parameter.default
    return next((steps for steps in (named, usual) if isinstance(steps, int) and steps > 0), 50)


def call_parameters(pipe: DiffusionPipeline) -> Mapping[str, inspect.Parameter]:
    """Name → parameter of the pipeline's call."""
    return inspect.signature(type(pipe).__call__).parameters


def takes_prompts(pipe: DiffusionPipeline) -> bool:
    """True for a pipeline that is called with text."""
    return "prompt" in call_parameters(pipe)


def usual_sampling(
    pipe: DiffusionPipeline, prompts: tuple[str, ...], call_kwargs: Mapping[str, Any] | None = None
) -> Sampling:
    """The images of prompts; of a pipeline that takes none, as many of noise or classes.

    Args:
        pipe: given the prompts, if it takes any; or else, where it needs class labels, those of
            `call_kwargs`, again and again, or some that are spread over all classes.
        prompts: for pipelines of text; of the others, their number counts.
        call_kwargs: further arguments of the call.
    """
    given = {} if call_kwargs is None else dict(call_kwargs)
    if takes_prompts(pipe):
        return Sampling(prompts=prompts, call_kwargs=given)
    count = len(prompts)
    label = call_parameters(pipe).get("class_labels")
    if label is not None and label.default is label.empty:
        given.setdefault("class_labels", _spread_labels(pipe, count))
    labels = given.get("class_labels")
    first = len(labels) if isinstance(labels, list) and labels else count
    return Sampling(count=first, call_kwargs=given).repeated(count)


def fixed_arguments(pipe: DiffusionPipeline, sampling: Sampling) -> dict[str, Any]:
    """Arguments for all images: the folder's defaults, overridden by what `sampling` sets.

    Raises:
        ModelError: the pipeline makes no images from noise, or its `generation.json` is wrong.
        UsageError: `sampling` sets what the pipeline's call has no argument for, or leaves out
            what it needs.
    """
    parameters, name = call_parameters(pipe), type(pipe).__name__
    if not {"generator", "output_type"} <= parameters.keys():
        raise ModelError(
            f"{name} does not make images or videos from noise; use a pipeline that does"
        )
    arguments = generation_defaults(pipe)
    for field, value in (
        ("num_inference_steps", sampling.steps),
        ("guidance_scale", sampling.guidance),
    ):
        if value is None:
            continue
        if field not in parameters:
            raise UsageError(f"{name} takes no {field}; leave it unset")
        arguments[field] = value
    _check_kwargs(pipe, sampling)
    for field in sampling.call_kwargs:
        arguments.pop(field, None)
    _check_needed(pipe, sampling, arguments)
    _check_size(pipe, {**arguments, **sampling.call_kwargs})
    check_steps(pipe, arguments.get("num_inference_steps"))
    return arguments


def own_arguments(pipe: DiffusionPipeline, part: Sampling) -> dict[str, Any]:
    """Arguments of one batch of images, beside `fixed_arguments`."""
    found: dict[str, Any] = dict(part.call_kwargs)
    if part.prompts:
        found["prompt"] = list(part.prompts)
    elif "batch_size" in call_parameters(pipe):
        found["batch_size"] = len(part)
    labels = found.get("class_labels")
    if isinstance(labels, int):  # the pipelines want one for each image
        found["class_labels"] = [labels] * len(part)
    return found


def remedy(pipe: DiffusionPipeline, sampling: Sampling) -> str:
    """Advice for a call on which the pipeline's own code fails."""
    takes = [name for name in _INPUTS if name in call_parameters(pipe)]
    missing = [name for name in takes if name not in sampling.call_kwargs]
    if missing:
        return f"it takes {', '.join(missing)} too: give what it needs in call_kwargs (--call)"
    if sampling.call_kwargs:
        given = ", ".join(sampling.call_kwargs)
        return f"check what call_kwargs (--call) gives as {given}, and the pipeline's components"
    return "check its components, or record calls that it takes"


def _check_kwargs(pipe: DiffusionPipeline, sampling: Sampling) -> None:
    """Refuse further arguments that the call does not take, or of which only digests are known."""
    name = type(pipe).__name__
    takes = [
        each
        for each, parameter in call_parameters(pipe).items()
        if each not in {"self", *SET_BY_SAMPLING} and parameter.kind is not parameter.VAR_KEYWORD
    ]
    for field in sampling.call_kwargs:
        if field not in takes:
            near = get_close_matches(field, takes, 1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(takes)}"
            raise UsageError(f"call_kwargs: {field}: {name} takes no such argument; {hint}")
    absent = sampling.call_kwargs.absent
    if absent:
        raise UsageError(
            f"call_kwargs: {absent[0]}: only its digest is known, from a plan; give a sampling "
            "with the value itself (--call)"
        )


def _check_needed(
    pipe: DiffusionPipeline, sampling: Sampling, arguments: Mapping[str, Any]
) -> None:
    name, parameters = type(pipe).__name__, call_parameters(pipe)
    if sampling.prompts and not takes_prompts(pipe):
        raise UsageError(f"prompts: {name} takes none; give Sampling(count=...) instead")
    if not sampling.prompts and takes_prompts(pipe) and "prompt_embeds" not in sampling.call_kwargs:
        raise UsageError(f"prompts: {name} needs some; give one for each image")
    given = {"self", *SET_BY_SAMPLING, *arguments, *sampling.call_kwargs}
    missing = [
        each
        for each, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and each not in given
    ]
    if missing:
        raise UsageError(f"call_kwargs: {name} needs {', '.join(missing)}; give them (--call)")


def _check_size(pipe: DiffusionPipeline, given: Mapping[str, Any]) -> None:
    """Refuse a height or width without the other: some pipelines then take neither, silently."""
    parameters = call_parameters(pipe)
    for one, other in (("height", "width"), ("width", "height")):
        unset = other in parameters and given.get(other, parameters[other].default) is None
        if given.get(one) is not None and unset:
            raise UsageError(f"{one}: is given without {other}; give both, or neither")


def check_steps(pipe: DiffusionPipeline, steps: int | None) -> None:
    """Refuse more steps than there are timesteps: schedulers fail on them each in its own way.

    Those of flow matching interpolate between two times, and take any number.
    """
    scheduler = getattr(pipe, "scheduler", None)
    config = getattr(scheduler, "config", {})
    known = config.get("num_train_timesteps")
    flows = "FlowMatch" in type(scheduler).__name__ or bool(config.get("use_flow_sigmas"))
    if steps is not None and isinstance(known, int) and steps > known and not flows:
        raise UsageError(
            f"steps: {steps:,} are more than the {known:,} timesteps that the pipeline's "
            f"{type(pipe.scheduler).__name__} knows; use fewer"
        )


def _spread_labels(pipe: DiffusionPipeline, count: int) -> list[int]:
    """Class labels from the first class on, evenly over all that the denoiser knows."""
    config = dict(getattr(find_denoiser(pipe)[1], "config", {}))
    classes = next((config[key] for key in _CLASSES if isinstance(config.get(key), int)), 1)
    return [place * classes // count for place in range(count)]
