"""One study of a denoiser: layers, calls, structures and calibration, for any recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from mezzotint._journal import Journal
from mezzotint.calibration import input_ranges, moments_of_plans, with_settings
from mezzotint.errors import ModelError, UsageError
from mezzotint.measuring import (
    CACHE_BYTES,
    InProcess,
    Original,
    calls_digest,
    check_weights,
    model_digest,
)
from mezzotint.models import (
    Call,
    Graph,
    Layer,
    component_names,
    layers_in,
    on_device,
    record_calls,
    text_readers,
    to_quantize,
    trace_calls,
)
from mezzotint.plan import (
    NAMES_SINCE,
    CalibrationSettings,
    CallSelection,
    Choice,
    Encoding,
    Plan,
    Tensors,
)
from mezzotint.recipes.found_structures import (
    FoundStructures,
    Shortcuts,
    find_structures,
    split_inputs,
)
from mezzotint.recipes.job import Job
from mezzotint.recipes.journaled_figures import Measuring, take_over
from mezzotint.recipes.restrictions import Restrictions
from mezzotint.recipes.some_choices import plan_of_some
from mezzotint.runtime import Calibration, EncodedWeights, InputRange

WEIGHT_COUNT = "weight_count"
"""Number of weights of all layers that can be quantized, in the context of plans."""


@dataclass(frozen=True, eq=False)
class Study:
    """Knowledge of a floating denoiser before anything is measured.

    Attributes:
        job: what was asked for.
        calls: recorded on the calibration prompts, or given; on the denoiser's device.
        graph: the denoiser's data flow, followed in the first call; in the first of each component.
        layers: those that can be packed, in the order of execution; none that the user excludes.
        structures: constant first tokens and split inputs.
        momentum: of the moving average that static ranges are, see `input_ranges`.
        selection: which calls of the pipeline's run were kept; None for all.
        restrictions: what the user decides of layers.
        names: of the layers, and of those that the user excludes.
    """

    job: Job
    calls: tuple[Call, ...]
    graph: Graph
    layers: tuple[Layer, ...]
    structures: FoundStructures
    momentum: float | None
    selection: CallSelection | None = None
    restrictions: Restrictions = field(default_factory=Restrictions)
    names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        job: Job,
        *,
        bos: bool,
        shortcuts: Shortcuts,
        momentum: float | None,
        selection: CallSelection | None = None,
        restrictions: Restrictions | None = None,
    ) -> Study:
        """Record the calls, unless they are given; follow the data flow, and look for structures.

        Args:
            job: its denoiser is studied.
            bos: look for constant first tokens.
            shortcuts: which joined inputs to split.
            momentum: with which static ranges will be calibrated, as of `input_ranges`.
            selection: the calls of the pipeline's run to keep; None for all. Calls that are given
                are all taken.
            restrictions: what the user decides of layers.

        Raises:
            ModelError: there is nothing to quantize, or the denoiser cannot be run on its call.
            UsageError: a bare module came without calls; or a pattern of the restrictions names no
                layer.
            CalibrationError: a weight holds NaN; the layer is named.
        """
        calls = on_device(_calls(job, selection), job.denoiser)
        graph = trace_calls(job.denoiser, calls)
        layers = tuple(
            layer
            for layer in layers_in(job.denoiser, graph)
            if layer.supported and to_quantize(layer.name, job.denoiser)
        )
        if not layers:
            raise ModelError(f"{job.model}: its denoiser has no Linear or Conv2d layer to quantize")
        for name in component_names(job.denoiser):
            if not any(layer.name.startswith(f"{name}.") for layer in layers):
                raise UsageError(
                    f"components: {name}: the recorded calls run no Linear or Conv2d layer of it; "
                    "leave it out"
                )
        check_weights(job.denoiser, [layer.name for layer in layers])
        names, restrictions = tuple(layer.name for layer in layers), restrictions or Restrictions()
        restrictions.check(names)
        layers = tuple(layer for layer in layers if restrictions.floating(layer.name) is None)
        splits = split_inputs(graph, layers, shortcuts)
        structures = find_structures(job, calls, text_readers(layers) if bos else None, splits)
        found = cls(job, calls, graph, layers, structures, momentum, selection)
        return replace(found, restrictions=restrictions, names=names)

    def weight(self, layer: Layer) -> Tensor:
        """The floating weight of a layer."""
        return self.job.denoiser.get_submodule(layer.name).get_parameter("weight")

    @property
    def weight_count(self) -> int:
        """Number of weights of all layers, those that the user excludes among them."""
        weights = (
            self.job.denoiser.get_submodule(name).get_parameter("weight") for name in self.names
        )
        return sum(weight.numel() for weight in weights)

    def structured(self, choices: Sequence[Choice]) -> dict[str, tuple[Choice, ...]]:
        """The same formats for every layer, with its own structures."""
        return {
            layer.name: tuple(self.structures.applied(layer.name, choice) for choice in choices)
            for layer in self.layers
        }

    def calibrated(
        self,
        choices: Mapping[str, Sequence[Choice]],
        encoding: Encoding | None = None,
        tensors: Mapping[str, Tensors] | None = None,
        *,
        fitted: Sequence[Call] | None = None,
    ) -> Calibration:
        """The first pass over the calls: all that some choice or the encoding needs of inputs.

        That is the first tokens' constants, ranges of inputs that are static, and moments.
        Weights that are encoded after it are kept.

        Args:
            choices: layer → its candidates; those that are quantized have the same structures, but
                for scales of inputs.
            encoding: of the weights of all of them; of its clip are the ranges.
            tensors: layer → what its structures have calibrated; by default the first tokens'
                constants.
            fitted: calls that the moments are of; by default all. Ranges are of all.
        """
        tensors = self.structures.constants if tensors is None else tensors
        (found,) = self.calibrated_together([(choices, tensors)], encoding, fitted=fitted)
        return found

    def calibrated_together(
        self,
        kinds: Sequence[tuple[Mapping[str, Sequence[Choice]], Mapping[str, Tensors]]],
        encoding: Encoding | None = None,
        *,
        fitted: Sequence[Call] | None = None,
    ) -> list[Calibration]:
        """The same for choices and tensors of several kinds of structures, by the same runs."""
        encoding = encoding or Encoding()
        plans = [(plan_of_some(each, encoding), tensors) for each, tensors in kinds]
        moments = moments_of_plans(self.job.denoiser, plans, fitted or self.calls)
        ranges = [self.ranges(each, encoding.clip, tensors) for each, tensors in kinds]
        return [
            Calibration(seen, tensors, moments=own, encoded=EncodedWeights())
            for seen, (_, tensors), own in zip(ranges, kinds, moments, strict=True)
        ]

    def ranges(
        self,
        choices: Mapping[str, Sequence[Choice]],
        clip: str,
        tensors: Mapping[str, Tensors] | None = None,
    ) -> dict[str, tuple[InputRange, ...]]:
        """Ranges of the inputs that are static, under a clip of `Encoding`.

        Args:
            choices: layer → its candidates.
            clip: of all of them.
            tensors: as of `calibrated`.
        """
        static = {n: choice for n, each in choices.items() for choice in each if choice.static}
        if not static:
            return {}
        return input_ranges(
            self.job.denoiser,
            static,
            self.calls,
            momentum=self.momentum,
            clips=dict.fromkeys(static, clip),
            tensors=self.structures.constants if tensors is None else tensors,
        )

    def settled(self, plan: Plan) -> Plan:
        """The plan, which says how its calibrated values were found."""
        settings = CalibrationSettings(calls=len(self.calls), momentum=self.momentum)
        if self.job.calls is None:
            settings = replace(settings, sampling=self.job.sampling, selection=self.selection)
        return with_settings(plan, settings)

    @contextmanager
    def measuring(
        self,
        calibration: Calibration,
        *,
        part: tuple[Call, ...] | None = None,
        cache_bytes: int | None = CACHE_BYTES,
    ) -> Iterator[Measuring]:
        """Open the journal, with what an earlier run has measured.

        One journal serves all budgets, metrics and momenta.

        Args:
            calibration: as `calibrated` gives it.
            part: samples of the calls, to measure on those alone; moments are of the others. None
                for all.
            cache_bytes: memory for what runs before a layer, of the executor in this process.

        Raises:
            JournalError: the journal, or the earlier measurements, are of something else.
        """
        job = self.job
        original = Original(
            job.denoiser, self.calls, calibration, job.pipe, job.sampling, self.momentum
        )
        if part is not None:
            original = replace(original, calls=part, part=calls_digest(part))
        header: dict[str, object] = {
            "model": model_digest(job.denoiser),
            "sampling": self._sampling(),
            "calls": calls_digest(self.calls),
            "torch": torch.__version__,
            "formats": NAMES_SINCE,  # names of formats in keys mean what they do in plans of it
        }
        make = job.measuring.executor
        if make is None or make is InProcess:
            make = partial(InProcess, cache_bytes=cache_bytes)
        with Journal(job.measuring.journal, header) as journal:
            if job.measuring.known is not None:
                take_over(journal, *job.measuring.known)
            yield Measuring(original, make, journal)

    def context(self) -> dict[str, object]:
        """Part of a plan's context, as JSON values."""
        budget = dataclasses.asdict(self.job.budget)
        if budget["quality"] is None:  # budgets of earlier versions had none
            del budget["quality"]
        found: dict[str, object] = {
            "budget": budget,
            "sampling": self._sampling(),
            "torch": torch.__version__,
            WEIGHT_COUNT: self.weight_count,
        }
        if self.job.calls is not None:
            found["calls"] = {"count": len(self.calls), "digest": calls_digest(self.calls)}
        found |= self.restrictions.context
        return found | {"notes": list(self.structures.notes)}

    def _sampling(self) -> dict[str, object] | None:
        return None if self.job.sampling is None else self.job.sampling.to_dict()


def _calls(job: Job, selection: CallSelection | None) -> tuple[Call, ...]:
    if job.calls:
        return job.calls
    if job.pipe is None or job.sampling is None:
        raise UsageError("calls: none given; a module without a pipeline needs some")
    return record_calls(job.pipe, job.sampling, selection, denoiser=job.denoiser)
