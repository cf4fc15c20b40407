"""Where the model needs more than one quantizer per layer: constant first tokens, joined inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from diffusers import DiffusionPipeline
from torch import Tensor, nn

from mezzotint.calibration import constant_outputs
from mezzotint.errors import ModelError
from mezzotint.models import (
    Call,
    Layer,
    Role,
    joined_inputs,
    on_device,
    record_calls,
    text_readers,
)
from mezzotint.plan import Choice
from mezzotint.recipes.base import Job

Shortcuts = Literal["none", "shortcuts", "concatenations"]

CONSTANT = "constant first token: the same for every prompt"
JOINED = "joined input: a quantizer for each half"
ZEROED = (
    "this pipeline replaces a missing negative prompt by zeros, which have no first token: with "
    "guidance, give a negative prompt (an empty string will do), or quantize with bos=false"
)
ZEROES_SEEN = (
    "this pipeline replaces a missing negative prompt by zeros, which have no first token: for a "
    "constant one, set negative_prompt (an empty string will do) in the folder's generation.json"
)
PADDED_LEFT = (
    "no constant first token: the tokenizer pads on the left, so that what stands first depends on "
    "a prompt's length"
)

_PROBES = ("zebra crossing", "quiet harbour")
"""Two first words, for prompts that share one: what follows a cut-off template is no constant."""


@dataclass(frozen=True, eq=False)
class Structure:
    """Layers of more than one quantizer.

    Attributes:
        constants: layer → floating output of its constant first token, [1, out_features].
        splits: layer → input channels of the first half.
        refused: text layer → why its first token cannot be taken for constant.
        notes: what had to be left out altogether, and why.
    """

    constants: Mapping[str, Tensor] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def fields(self) -> dict[str, dict[str, int]]:
        """Layer → the fields of its choice that say so."""
        constant: dict[str, dict[str, int]] = {n: {"constant_tokens": 1} for n in self.constants}
        return constant | {name: {"split": first} for name, first in self.splits.items()}

    def applied(self, layer: str, choice: Choice) -> Choice:
        """`choice` with the structure of `layer`, where it is quantized."""
        return choice.with_structure(**self.fields.get(layer, {})) if choice.quantized else choice

    def reasons(self) -> dict[str, str]:
        """Layer → what is special about it."""
        refused = {
            name: f"its first token is quantized like the others: {why}"
            for name, why in self.refused.items()
        }
        constant = dict.fromkeys(self.constants, CONSTANT)
        return refused | constant | dict.fromkeys(self.splits, JOINED)


def find_structure(
    job: Job, layers: Sequence[Layer], calls: Sequence[Call], *, bos: bool, shortcuts: Shortcuts
) -> Structure:
    """Look at the recorded calls for constant first tokens, and at the data flow for joins.

    Args:
        job: its denoiser is looked at.
        layers: that can be packed.
        calls: of two different prompts or more; with one, no token can be seen to be constant.
        bos: look for constant first tokens.
        shortcuts: which joined inputs to split.
    """
    notes: list[str] = []
    splits: dict[str, int] = {}
    try:
        splits = split_inputs(job.denoiser, layers, calls[0], shortcuts)
    except ModelError as cause:
        notes.append(f"no input is split: {cause}")
    readers = text_readers(layers) if bos else ()
    if bos and not readers:
        notes.append("no constant first token: no layer reads the text")
    if readers and job.pipe is not None and pads_left(job.pipe):
        notes.append(PADDED_LEFT)
        readers = ()
    if readers and job.calls is None:
        calls = [*calls, *_probing_calls(job)]
    found = constant_outputs(job.denoiser, readers, calls)
    if found.refused:
        why = "; ".join(dict.fromkeys(found.refused.values()))
        notes.append(f"no constant first token in {len(found.refused)} layers: {why}")
    if (found.constants or found.refused) and job.pipe is not None and zeroes_prompts(job.pipe):
        notes.append(ZEROED if found.constants else ZEROES_SEEN)
    splits = {name: first for name, first in splits.items() if name not in found.constants}
    return Structure(found.constants, splits, found.refused, tuple(notes))


def _share_first_word(prompts: Sequence[str]) -> bool:
    return len(prompts) > 1 and len({" ".join(p.casefold().split()[:1]) for p in prompts}) == 1


def _probing_calls(job: Job) -> tuple[Call, ...]:
    """The first call on prompts of other first words, where those of the job share theirs."""
    if job.pipe is None or job.sampling is None or not _share_first_word(job.sampling.prompts):
        return ()
    sampling = replace(job.sampling, prompts=_PROBES)
    return on_device(record_calls(job.pipe, sampling, limit=1), job.denoiser)


def zeroes_prompts(pipe: DiffusionPipeline) -> bool:
    """Whether the pipeline (SDXL's do) puts zeros where no negative prompt is given."""
    return bool(pipe.config.get("force_zeros_for_empty_prompt", False))


def pads_left(pipe: DiffusionPipeline) -> bool:
    """Whether a tokenizer of the pipeline fills up short prompts at their beginning.

    To be asked after a call: some pipelines choose the side when they encode their first prompt.
    """
    parts = list(pipe.components.values())
    parts += [getattr(one, "tokenizer", None) for one in parts]  # of processors
    return any(getattr(one, "padding_side", "right") == "left" for one in parts)


def split_inputs(
    denoiser: nn.Module, layers: Sequence[Layer], call: Call | None, which: Shortcuts
) -> dict[str, int]:
    """Layer → channels of the first half, of the layers that `which` asks for.

    Raises:
        ModelError: the data flow cannot be followed.
    """
    if which == "none":
        return {}
    wanted = {
        layer.name
        for layer in layers
        if layer.groups == 1 and (layer.role is Role.SHORTCUT or which == "concatenations")
    }
    joins = joined_inputs(denoiser, call)
    return {name: first for name, first in joins.items() if name in wanted}
