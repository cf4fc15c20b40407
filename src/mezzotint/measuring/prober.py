"""Sensitivity of every layer at once: a forward and a backward pass per probe, journaled."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from mezzotint._journal import Journal
from mezzotint._progress import track
from mezzotint.errors import (
    CalibrationError,
    PlanError,
    ProbeError,
    UsageError,
)
from mezzotint.measuring.backward_errors import backward_errors
from mezzotint.measuring.checkpointing import gradient_checkpointing, needs_checkpointing
from mezzotint.measuring.in_process import recorded_output
from mezzotint.measuring.input_edge import InputCandidate
from mezzotint.measuring.probe_conditions import described_plan, digest_of
from mezzotint.measuring.probe_entries import ProbeEntries
from mezzotint.measuring.probed_layer import (
    Base,
    CandidateWeight,
    LayerCandidates,
    Memory,
    ProbedLayer,
)
from mezzotint.measuring.probes import Probe, random_signs
from mezzotint.measuring.projections import Projections
from mezzotint.measuring.replay import CACHE_BYTES
from mezzotint.measuring.samples import Samples, sample_count
from mezzotint.measuring.step_table import StepTable
from mezzotint.models import Call, evaluating
from mezzotint.plan import Choice, Plan
from mezzotint.runtime import Calibration, TimestepReader, own_tensors, shape_of
from mezzotint.runtime.layer_tensors import check_calibrated
from mezzotint.runtime.pack import naming


@dataclass(frozen=True, eq=False)
class Prober:
    """Projects changes of a denoiser onto random directions of its output.

    Around the floating model, or around a plan: stored weights, inputs rounded where the plan
    rounds them, with gradients straight through. Held beside the denoiser are the activations of
    one sample, one gradient, one candidate, what `cache_bytes` allows, and for a plan its weights.
    Where the denoiser's own weights stay on disk, those of one layer are held at a time, and a
    plan's are decoded where they are used.

    Attributes:
        denoiser: floating; as before after every run.
        calls: recorded, with their outputs, on the denoiser's device.
        candidates: layer → changes that are asked for.
        weight_of: gives candidate weights, and those of the plan.
        encoding: how `weight_of` makes them: equal for equal weights, as it is part of a journal's
            keys.
        calibration: structures' tensors; for a plan with static ranges, these.
        plan: of the base model; None for the floating one.
        checkpointing: whether blocks are computed again in the backward pass, which takes less
            memory; None where memory is short.
        cache_bytes: memory for decoded changes of weights, which saves most of the time of small
            models; None for no bound, 0 to decode them for every probe.
    """

    denoiser: nn.Module
    calls: Sequence[Call]
    candidates: Mapping[str, LayerCandidates]
    weight_of: CandidateWeight
    encoding: str = ""
    calibration: Calibration = field(default_factory=Calibration)
    plan: Plan | None = None
    checkpointing: bool | None = None
    cache_bytes: int | None = CACHE_BYTES

    def __post_init__(self) -> None:
        if self.cache_bytes is not None and self.cache_bytes < 0:
            raise UsageError(f"cache_bytes: {self.cache_bytes} is negative; use 0 to keep nothing")

    def run(self, probes: Sequence[Probe], journal: Journal) -> Projections:
        """The projections of every probe, in their order.

        Probes in the journal are not run again, where all that they depend on is the same.

        Raises:
            ProbeError: a backward pass fails, runs out of memory, or brings NaN or infinity; the
                call is named, and the layer where it is one's. Measure instead.
            CalibrationError: the output is NaN or infinite, there are no calls or none of a
                probe's, or a call was never run.
            FormatError, PlanError: a candidate cannot be made of its layer; the layer is named.
            JournalError: what the journal holds are no projections; file and unit are named.
        """
        if not self.calls:
            raise CalibrationError("no denoiser calls were recorded; give at least one prompt")
        if not probes:
            raise CalibrationError("no probes were drawn; give at least one")
        missing = self.missing(probes, journal)
        if missing:
            with self._probing(missing) as run:
                for probe in track(missing, "Probing"):
                    self._entries.add(journal, probe, run(probe))
        return self._entries.read(journal, probes)

    def missing(self, probes: Sequence[Probe], journal: Journal) -> list[Probe]:
        """The probes that the journal lacks, each once."""
        entries = self._entries
        return [probe for probe in dict.fromkeys(probes) if entries.key(probe) not in journal]

    @cached_property
    def _entries(self) -> ProbeEntries:
        around = None
        if self.plan is not None:
            tables = {
                name: self._step_tables(name, choice)
                for name, choice in self.plan.choices.items()
                if choice.steps
            }
            around = described_plan(self.plan, self.calibration.input_ranges, tables)
        conditions = digest_of(self.candidates, around, self.encoding, self.calls)
        return ProbeEntries(self.candidates, conditions)

    @contextmanager
    def _probing(self, probes: Sequence[Probe]) -> Iterator[Callable[[Probe], dict[str, Any]]]:
        """Everything in place for backward passes, and back in its own at the end."""
        with torch.inference_mode(False), _frozen(self.denoiser), ExitStack() as stack:
            # While the denoiser is the one whose outputs were recorded.
            known = Samples(self.denoiser)
            samples = {probe: self._sample(probe, known) for probe in probes}
            checkpointing = self.checkpointing
            if checkpointing is None:
                checkpointing = needs_checkpointing(self.denoiser, samples[probes[0]])
            if checkpointing:
                stack.enter_context(gradient_checkpointing(self.denoiser))
            layers = self._layers()
            for layer in layers.values():
                stack.enter_context(layer.probing())
            stack.enter_context(torch.enable_grad())
            yield lambda probe: self._probe(probe, samples[probe], layers)

    def _probe(
        self, probe: Probe, sample: Call, layers: Mapping[str, ProbedLayer]
    ) -> dict[str, Any]:
        """Energy, residual and projections of one probe."""
        y = recorded_output(sample).double()
        direction = random_signs(y, probe.seed)
        self._begin(sample, layers)
        with backward_errors(self.denoiser, probe.call):
            output = sample.run(self.denoiser)
            if not bool(torch.isfinite(output).all()):
                raise CalibrationError(
                    f"call {probe.call}: the denoiser's output holds NaN or infinite values"
                )
            projected = (output.float() * direction.float()).sum()
            projected.backward()  # type: ignore[no-untyped-call]
        residual = 0.0
        if self.plan is not None:
            residual = float(((output.detach().double() - y) * direction).sum())
        weights = {name: layers[name].weight_sums() for name in self.candidates}
        inputs = {name: layers[name].input_sums() for name in self.candidates}
        for layer in layers.values():
            layer.clear()
        _check_finite(probe, weights)
        _check_finite(probe, inputs)
        energy = float(y.square().sum())
        return {"energy": energy, "residual": residual, "weights": weights, "inputs": inputs}

    def _begin(self, sample: Call, layers: Mapping[str, ProbedLayer]) -> None:
        """Tell layers the timestep, which some ask for in the backward pass as well."""
        timed = [layer for layer in layers.values() if layer.timed]
        if timed:
            timestep = TimestepReader.given(self.denoiser, sample.args, sample.kwargs)
            if timestep is None:
                raise CalibrationError(
                    "a probe is of a call without a timestep, which inputs that have a scale for "
                    "each ask for; give one with each call"
                )
            for layer in timed:
                layer.begin(timestep)

    def _sample(self, probe: Probe, known: Samples) -> Call:
        if not 0 <= probe.call < len(self.calls):
            raise CalibrationError(
                f"a probe is of call {probe.call}, but there are {len(self.calls)} calls; draw "
                "probes of these"
            )
        call = self.calls[probe.call]
        count = sample_count(call)
        if not 0 <= (probe.row or 0) < count:
            raise CalibrationError(
                f"a probe is of row {probe.row or 0} of call {probe.call}, which has {count} rows; "
                "draw probes of these"
            )
        return known.sample(call, probe.row)

    def _layers(self) -> dict[str, ProbedLayer]:
        quantized = {} if self.plan is None else self.plan.quantized
        asked, memory = dict.fromkeys([*self.candidates, *quantized]), Memory(self.cache_bytes)
        layers = {name: self.layer(name, memory) for name in asked}
        names: dict[nn.Module, str] = {}
        for name, probed in layers.items():
            other = names.setdefault(probed.layer, name)
            if other != name:
                raise PlanError(f"layer {name} is {other} under another name; leave one out")
        return layers

    def layer(self, name: str, memory: Memory) -> ProbedLayer:
        """One layer as it is probed.

        Raises:
            PlanError: it has no linear or convolutional weight, or candidates in other structures
                than the plan's.
            CalibrationError, FormatError: a candidate cannot be made of it.
        """
        layer = self.denoiser.get_submodule(name)
        if type(layer) is not nn.Linear and type(layer) is not nn.Conv2d:
            kind = type(layer).__name__
            raise PlanError(f"layer {name} is a {kind}, not a Linear or Conv2d")
        choice = Choice() if self.plan is None else self.plan.choices.get(name, Choice())
        structures = choice.with_floating_input.structures
        candidates = self.candidates.get(name, LayerCandidates(structures=structures))
        if choice.quantized and structures != candidates.structures:
            raise PlanError(
                f"layer {name}: has {choice.label or 'no structures'} in the plan, but its "
                "candidates have others; make them the same"
            )
        known = self.calibration.tensors.get(name, {})
        with naming(name):
            base = InputCandidate(
                choice.activation_format,
                self.calibration.input_ranges.get(name, ()) if choice.static else (),
                steps=self._step_tables(name, choice),
            )
            for each in (base, *candidates.inputs.values()):
                each.check(candidates.structures)
            check_calibrated(candidates.as_choice, shape_of(layer), known)
            own = own_tensors(candidates.structures, layer.weight.detach(), shape_of(layer), known)
        return ProbedLayer(
            name=name,
            layer=layer,
            candidates=candidates,
            tensors=own,
            base=Base(_of_weight(choice, candidates), base),
            weight_of=self.weight_of,
            memory=memory,
        )

    def _step_tables(self, name: str, choice: Choice) -> tuple[StepTable, ...]:
        shape = shape_of(self.denoiser.get_submodule(name))
        return StepTable.each_of(choice.structures, shape, self.calibration.tensors.get(name, {}))


def _of_weight(choice: Choice, candidates: LayerCandidates) -> Choice:
    """The choice that a layer's weight in the base model is asked for by."""
    return replace(candidates.choice(choice.weight), part_formats=choice.part_formats)


def _check_finite(probe: Probe, found: Mapping[str, Mapping[str, float]]) -> None:
    for name, values in found.items():
        for key, value in values.items():
            if not math.isfinite(value):
                raise ProbeError(
                    f"call {probe.call}: layer {name}: its gradient or its input holds NaN or "
                    f"infinite values ({key}); measure the layers one by one instead"
                )


@contextmanager
def _frozen(denoiser: nn.Module) -> Iterator[None]:
    """No parameter requires gradients, and dropout is off; as before at the end."""
    gradients = {parameter: parameter.requires_grad for parameter in denoiser.parameters()}
    with evaluating(denoiser):
        try:
            denoiser.requires_grad_(False)
            yield
        finally:
            for parameter, required in gradients.items():
                parameter.requires_grad_(required)
