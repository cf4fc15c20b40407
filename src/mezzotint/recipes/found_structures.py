"""Structures that a model calls for: constant first tokens, joined inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from diffusers import DiffusionPipeline
from torch import nn

from mezzotint.calibration import observe_structures
from mezzotint.models import (
    Call,
    Graph,
    Layer,
    Role,
    joined_inputs,
    on_device,
    record_calls,
)
from mezzotint.plan import Choice, Sampling, Structure, Tensors
from mezzotint.recipes.job import Job
from mezzotint.runtime import ConstantTokens, SplitInput

Shortcuts = Literal["none", "shortcuts", "concatenations"]

CONSTANT = "constant first token: the same for every prompt"
JOINED = "joined input: a quantizer for each half"
ZEROED = (
    "this pipeline replaces a missing negative prompt by zeros, which have no first token: with "
    "guidance, their outputs are computed through the quantized layers; give a negative prompt (an "
    "empty string will do) to use the constant for it as well"
)
ZEROES_SEEN = (
    "this pipeline replaces a missing negative prompt by zeros, which have no first token: for a "
    "constant one, set negative_prompt (an empty string will do) in the folder's generation.json"
)
PADDED_LEFT = (
    "no constant first token: the tokenizer pads on the left, so that what stands first depends on "
    "a prompt's length"
)

LOOKING_FOR_CONSTANTS = "Constant tokens"
"""Label of the progress of that stage."""

_PROBES = ("zebra crossing", "quiet harbour")
"""Two first words, for prompts that share one: what follows a cut-off template is no constant."""


@dataclass(frozen=True, eq=False)
class FoundStructures:
    """Layers of more than one quantizer.

    Attributes:
        constants: layer → what calibration stores of its constant first token.
        splits: layer → input channels of the first half.
        refused: text layer → why its first token cannot be taken for constant.
        notes: what had to be left out altogether, and why.
    """

    constants: Mapping[str, Tensors] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def by_layer(self) -> dict[str, tuple[Structure, ...]]:
        """Layer → the structures of its choice, where it has any."""
        constant: dict[str, tuple[Structure, ...]]
        constant = dict.fromkeys(self.constants, (ConstantTokens(1),))
        return constant | {name: (SplitInput(first),) for name, first in self.splits.items()}

    def applied(self, layer: str, choice: Choice) -> Choice:
        """`choice` within the structures of `layer`, where it is quantized."""
        if not choice.quantized:
            return choice
        return choice.with_structures(*self.by_layer.get(layer, ()), *choice.structures)

    def reasons(self) -> dict[str, str]:
        """Layer → what is special about it."""
        refused = {
            name: f"its first token is quantized like the others: {why}"
            for name, why in self.refused.items()
        }
        constant = dict.fromkeys(self.constants, CONSTANT)
        return refused | constant | dict.fromkeys(self.splits, JOINED)


def find_structures(
    job: Job, calls: Sequence[Call], readers: Sequence[str] | None, splits: Mapping[str, int]
) -> FoundStructures:
    """Look at the recorded calls for constant first tokens, beside the joins in the data flow.

    Args:
        job: its denoiser is looked at.
        calls: of two different prompts or more; with one, no token can be seen to be constant.
        readers: layers that may read the text; None to look for no constant tokens.
        splits: layer → channels of the first half, of the joined inputs to split.
    """
    notes: list[str] = []
    if readers is not None and not readers:
        notes.append("no constant first token: no layer reads the text")
    readers = readers or ()
    if readers and job.pipe is not None and pads_left(job.pipe):
        notes.append(PADDED_LEFT)
        readers = ()
    probes: tuple[Call, ...] = ()
    if readers and job.calls is None and job.pipe is not None and job.sampling is not None:
        probes = probing_calls(job.pipe, job.denoiser, job.sampling)
    constant = dict.fromkeys(readers, (ConstantTokens(1),))
    found = observe_structures(
        job.denoiser, constant, calls, probes=probes, label=LOOKING_FOR_CONSTANTS
    )
    refused = {name: refusal.why for name, refusal in found.refused.items()}
    if refused:
        why = "; ".join(dict.fromkeys(refused.values()))
        notes.append(f"no constant first token in {len(refused)} layers: {why}")
    if (found.tensors or refused) and job.pipe is not None and zeroes_prompts(job.pipe):
        notes.append(ZEROED if found.tensors else ZEROES_SEEN)
    splits = {name: first for name, first in splits.items() if name not in found.tensors}
    return FoundStructures(found.tensors, splits, refused, tuple(notes))


def probing_calls(
    pipe: DiffusionPipeline, denoiser: nn.Module, sampling: Sampling
) -> tuple[Call, ...]:
    """The first call on prompts of other first words, where all of `sampling` have the same.

    Calls to be looked at beside those of `sampling`, when first tokens are compared.
    """
    if not alike_at_first(sampling):
        return ()
    asked = replace(sampling.part(0, 2), prompts=_PROBES)
    return on_device(record_calls(pipe, asked, limit=1, denoiser=denoiser), denoiser)


def alike_at_first(sampling: Sampling) -> bool:
    """True where all of several prompts have the same first word."""
    prompts = sampling.prompts
    return len(prompts) > 1 and len({" ".join(p.casefold().split()[:1]) for p in prompts}) == 1


def zeroes_prompts(pipe: DiffusionPipeline) -> bool:
    """True where the pipeline (SDXL's do) puts zeros if no negative prompt is given."""
    return bool(pipe.config.get("force_zeros_for_empty_prompt", False))


def pads_left(pipe: DiffusionPipeline) -> bool:
    """True where a tokenizer of the pipeline fills up short prompts at their beginning.

    To be asked after a call: some pipelines choose the side when they encode their first prompt.
    """
    parts = list(pipe.components.values())
    parts += [getattr(one, "tokenizer", None) for one in parts]  # of processors
    return any(getattr(one, "padding_side", "right") == "left" for one in parts)


def split_inputs(graph: Graph, layers: Sequence[Layer], which: Shortcuts) -> dict[str, int]:
    """Layer → channels of the first half, of the layers that `which` asks for."""
    if which == "none":
        return {}
    wanted = {
        layer.name
        for layer in layers
        if layer.groups == 1 and (layer.role is Role.SHORTCUT or which == "concatenations")
    }
    joins = joined_inputs(graph)
    return {name: first for name, first in joins.items() if name in wanted}
