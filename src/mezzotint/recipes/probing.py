"""Probes of a study: what every candidate changes, told by a few backward passes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from mezzotint._journal import Journal
from mezzotint.measuring import (
    MOST_PROBES,
    LayerCandidates,
    PassSeconds,
    Probe,
    Prober,
    Projections,
    Samples,
    backward_errors,
    candidate_seconds,
    draw_probes,
    rounded_inputs,
    tell,
    timed_call,
)
from mezzotint.models import Call, component_of
from mezzotint.plan import Choice, Encoding, Plan
from mezzotint.recipes.study import Study
from mezzotint.runtime import Calibration, LayerToEncode


@dataclass(frozen=True, eq=False)
class Probing:
    """Backward passes of one study, with the weights as they would be stored.

    Attributes:
        study: its denoiser is probed on its calls.
        calibration: of everything that candidates need.
        encoding: of all candidate weights.
        journal: keeps what probes have found.
    """

    study: Study
    calibration: Calibration
    encoding: Encoding
    journal: Journal
    passes: PassSeconds | None = None
    """Seconds of one sample, where they are known."""

    def projections(
        self,
        candidates: Mapping[str, LayerCandidates],
        count: int,
        *,
        calls: Sequence[Call] | None = None,
        plan: Plan | None = None,
    ) -> Projections:
        """Project every candidate; how long that will take is announced.

        Args:
            candidates: layer → changes that are asked for.
            count: of probes.
            calls: by default the study's.
            plan: around which; None for the floating model.

        Raises:
            ProbeError: the model's backward pass fails; measure instead.
        """
        calls = self.study.calls if calls is None else calls
        # Around a plan it is others that are looked at: what was chosen by the first is no news.
        probes = _probes_of_all(calls, count, seed=0 if plan is None else 1)
        prober = Prober(
            self.study.job.denoiser,
            calls,
            candidates,
            self._weight_of,
            json.dumps(self.encoding.to_dict()),
            self.calibration if plan is None else self.calibration.under(plan.choices),
            plan,
        )
        missing = prober.missing(probes, self.journal)
        seconds = partial(self._seconds, prober, missing)
        tell("Probing", len(missing), seconds, "probes")
        return prober.run(probes, self.journal)

    def _weight_of(self, name: str, choice: Choice) -> tuple[Tensor, Tensor | None]:
        """The weight as it would be stored, and what is added to its bias."""
        layer = self.study.job.denoiser.get_submodule(name)
        known = self.calibration.under({name: choice})
        assert known.encoded is not None, "every study keeps what it encodes"
        asked = LayerToEncode(name, layer, choice, self.encoding, known)
        return known.encoded.weight(asked), known.encoded.bias_shift(asked)

    def _seconds(self, prober: Prober, missing: Sequence[Probe]) -> float:
        """Seconds of a probe, with its share of preparation and of encoding all candidates.

        One sample is timed, unless one was before, and the candidates of one layer.

        Raises:
            ProbeError: the model's backward pass fails.
        """
        passes = self.passes or self._timed(prober, missing[0])
        candidates, count = candidate_seconds(prober), len(missing)
        taken = passes.of_probes(count, candidates, rounded_inputs(prober))
        return (taken + candidates.encoding) / count

    @staticmethod
    def _timed(prober: Prober, probe: Probe) -> PassSeconds:
        denoiser = prober.denoiser
        sample = Samples(denoiser).sample(prober.calls[probe.call], probe.row)
        with backward_errors(denoiser, probe.call):
            backward = timed_call(denoiser, sample, backward=True)
            return PassSeconds(timed_call(denoiser, sample), backward)


def _probes_of_all(calls: Sequence[Call], count: int, seed: int) -> tuple[Probe, ...]:
    """Probes, twice as many as often as it takes for each component of a joint module to have one.

    A component without any would seem to cost nothing.
    """
    while True:
        probes = draw_probes(calls, count, seed=seed)
        reached = {component_of(calls[probe.call]) for probe in probes}
        if reached == {*map(component_of, calls)} or count >= MOST_PROBES:
            return probes
        count = min(2 * count, MOST_PROBES)
