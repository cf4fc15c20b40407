"""A base model's result: its plan, and what its probes tell of every candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mezzotint._journal import Record
from mezzotint._words import listed
from mezzotint.checkpoint import MEASUREMENTS_FILE, read_plan
from mezzotint.errors import JournalError, PlanError
from mezzotint.measuring import RecordedProbes, recorded_probes
from mezzotint.models import component_names
from mezzotint.plan import Choice, Plan
from mezzotint.recipes.auto.estimates import clipped_name
from mezzotint.recipes.auto.losses import Losses
from mezzotint.recipes.auto.names import input_name, is_smoothed
from mezzotint.recipes.auto.sensitivity import Candidates, Unit, units_of
from mezzotint.recipes.study import WEIGHT_COUNT, Study


@dataclass(frozen=True, eq=False)
class Base:
    """Plan and probes of a model of the same layers.

    Attributes:
        plan: of the model.
        probes: around the floating model.
    """

    plan: Plan
    probes: RecordedProbes

    @classmethod
    def read(cls, source: Path, study: Study, candidates: Candidates) -> Base:
        """Read a result.

        Args:
            source: folder that `quantize` wrote, or one with plan.json and measurements.jsonl; or
                the plan of a sweep.
            study: of the model at hand.
            candidates: of its layers: the probes that know most of them are taken.

        Raises:
            PlanError: there is no plan, or it is of other components or another model's layers.
            JournalError: there are no measurements, or no probes among them.
        """
        plan, path = base_plan(source), _measurements(source)
        _check_layers(plan, source, study)
        groups = recorded_probes(Record.read(path).entries, str(path))
        floating = [each for each in groups if not each.around_plan]
        if not floating:
            raise JournalError(
                f"{path}: holds no probes of a floating model; quantize the base by recipe auto"
            )
        known = [(_known(each, candidates), each.count) for each in floating]
        best = max(range(len(floating)), key=lambda index: known[index])
        return cls(plan, floating[best])

    def row(self, unit: Unit) -> NDArray[np.float64] | None:
        """Noise by each probe of a format of a layer, [probes]; None where it was not probed.

        Of a static input at the clip that the plan has for it.
        """
        if unit.of_input and unit.choice.static and not is_smoothed(unit.choice):
            clip = self.plan.encoding_of(unit.layer).clip
            name = clipped_name(input_name(unit.choice), clip)
            found = self.probes.row(unit.layer, name, of_input=True)
            if found is not None:
                return found
        return self.probes.row(unit.layer, unit.format, of_input=unit.of_input)

    def knows(self, layer: str, choice: Choice) -> bool:
        """True where every format of a choice was probed."""
        return all(self.row(unit) is not None for unit in units_of(layer, [choice]))

    def losses(self, candidates: Candidates, times: NDArray[np.float64] | None = None) -> Losses:
        """Losses of candidates that are known.

        Args:
            candidates: of every layer, all known.
            times: how often each probe counts; by default once.
        """
        times = np.ones(self.probes.count) if times is None else times
        weights: dict[str, dict[str, float]] = {name: {} for name in candidates}
        inputs: dict[str, dict[str, float]] = {name: {} for name in candidates}
        for name, choices in candidates.items():
            for unit in units_of(name, choices):
                row = self.row(unit)
                assert row is not None, "the candidates are known"
                loss = float(row @ times / times.sum())
                (inputs if unit.of_input else weights)[name][unit.format] = loss
        return Losses(weights, inputs)

    def choice(self, layer: str, candidates: Sequence[Choice]) -> Choice | None:
        """The candidate that is the plan's choice of a layer, if there is one."""
        asked = self.plan[layer]
        return next(
            (
                each
                for each in candidates
                if (each.weight_label, each.activation) == (asked.weight_label, asked.activation)
                and is_smoothed(each) == is_smoothed(asked)
            ),
            None,
        )


def base_plan(source: Path) -> Plan:
    """The plan of a result, as of `Base.read`.

    Raises:
        PlanError: there is none.
    """
    plain = source / Plan.FILE
    return Plan.load(plain) if plain.is_file() else read_plan(source)


def _measurements(source: Path) -> Path:
    if not source.is_file():
        return source / MEASUREMENTS_FILE
    # Those of a sweep lie beside the folder of its plans.
    beside = source.parent / MEASUREMENTS_FILE
    return beside if beside.exists() else source.parent.parent / MEASUREMENTS_FILE


def _check_layers(plan: Plan, source: Path, study: Study) -> None:
    here = component_names(study.job.denoiser)
    if {*plan.components} != {*here}:
        raise PlanError(
            f"{source}: its plan is of {_subject(plan.components)}, and here is quantized "
            f"{_subject(here)}; name the same components"
        )
    other = "a base has the layers of its fine-tune"
    for layer in study.layers:
        if layer.name not in plan.choices:
            raise PlanError(f"{source}: its plan has no layer {layer.name}; {other}")
    count = plan.context.get(WEIGHT_COUNT)
    # The same layers are compared: calls of another kind may have run some more.
    if isinstance(count, int) and {*plan.choices} == {*study.names} and count != study.weight_count:
        raise PlanError(
            f"{source}: is of a model whose layers have {count:,} weights, and here they have "
            f"{study.weight_count:,}; {other}"
        )


def _subject(components: Sequence[str]) -> str:
    return listed(components) if components else "one denoiser"


def _known(probes: RecordedProbes, candidates: Candidates) -> int:
    return sum(
        unit.format in probes.names.get(name, ())
        for name, choices in candidates.items()
        for unit in units_of(name, choices)
    )
