"""Limit on the sum over layers, for a latency in the user's terms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mezzotint.allocation import Limit, Option, Problem, solve
from mezzotint.errors import InfeasibleBudgetError, ProfileError, UsageError
from mezzotint.plan import Choice, Plan
from mezzotint.profiling import (
    Profile,
    Work,
    check_profile,
    latency_context,
    milliseconds,
    profile_pipeline,
)
from mezzotint.recipes.study import Study

PICOSECONDS = "picoseconds"
"""Whole ones: the program keeps limits exactly, which integers make cheap."""

_PER_MILLISECOND = 10**9


@dataclass(frozen=True)
class Deadline:
    """Bound on the time of one denoiser call.

    Attributes:
        asked: in the user's words.
        target: milliseconds of the whole call.
        profile: what every layer takes.
    """

    asked: str
    target: float
    profile: Profile

    @property
    def limit(self) -> Limit:
        """On the layers' share of a call; all of them floating take it up exactly at 1x."""
        return Limit(PICOSECONDS, maximum=_picoseconds(self.target) - self._rest)

    @property
    def _rest(self) -> int:
        floating = sum(self.cost(name, Choice()) for name in self.profile.layers)
        return _picoseconds(self.profile.milliseconds) - floating

    def cost(self, layer: str, choice: Choice) -> int:
        """Picoseconds of a layer.

        Raises:
            ProfileError: they were not measured.
        """
        return _picoseconds(milliseconds(self.profile, layer, choice))

    def check(
        self,
        costs: Mapping[str, Mapping[Choice, Mapping[str, int]]],
        others: Sequence[Limit],
    ) -> None:
        """Check that some plan within the other limits is fast enough; scores do not matter.

        Raises:
            InfeasibleBudgetError: none is; names the fastest.
        """
        fastest = Problem(
            {
                name: tuple(
                    Option(choice, -float(cost[PICOSECONDS]), cost) for choice, cost in each.items()
                )
                for name, each in costs.items()
            }
        )
        least = solve(fastest, others).used[PICOSECONDS]
        if least <= self.limit.maximum:
            return
        # Rounded up, so that asking for what is named will do.
        nearest = math.ceil((self._rest + least) / _PER_MILLISECOND * 1e3) / 1e3
        ratio = math.ceil(nearest / self.profile.milliseconds * 1e3) / 1e3
        within = "of this size " if others else ""
        raise InfeasibleBudgetError(
            f"latency {self.asked} cannot be met: the fastest plan {within}takes {nearest:.3f}ms, "
            f"{ratio:.3f}x the floating denoiser's {self.profile.milliseconds:.3f}ms, of which "
            f"{self.profile.rest:.3f}ms are no layer's; ask for that or more"
        )

    def context(self, plan: Plan) -> dict[str, object]:
        """Part of the plan's context, JSON values."""
        return {"latency": latency_context(self.profile, plan, self.target)}


def _picoseconds(milliseconds: float) -> int:
    return round(milliseconds * _PER_MILLISECOND)


def deadline(
    study: Study,
    choices: Sequence[Choice],
    source: str | None = None,
    batch: int | None = None,
) -> Deadline | None:
    """The limit that the job's budget sets to latency, if any.

    Args:
        study: its denoiser is profiled where `source` is None; on this machine that is done once.
        choices: between which the program decides, for every layer.
        source: a profile's file; its figures have the structures that it was made with.
        batch: images per call; by default the file's, or else 1.

    Raises:
        ProfileError: the file is of another model, machine or batch, or lacks a choice.
        UsageError: a profile or batch is given, but no latency; or a module without a pipeline has
            no profile.
    """
    job = study.job
    if job.budget.latency is None:
        if source is not None or batch is not None:
            raise UsageError("profile, batch: are for budgets with a latency; give one as well")
        return None
    if source is None:
        if job.pipe is None or job.sampling is None:
            raise UsageError(
                "latency: a bare module is not profiled; name a profile of its layers, or limit "
                "its bytes"
            )
        profile = profile_pipeline(
            job.pipe,
            Work(1 if batch is None else batch, job.sampling, study.structures.by_layer),
            choices=choices,
        )
    else:
        profile = Profile.load(Path(source))
        check_profile(profile, job.denoiser, source)
        if batch not in (None, profile.batch):
            raise ProfileError(
                f"{source}: is for a batch of {profile.batch}, not {batch}; leave batch out, or "
                "profile again"
            )
    target = job.budget.milliseconds(profile.milliseconds)
    assert target is not None
    found = Deadline(job.budget.latency, target, profile)
    for layer in study.layers:
        for choice in choices:
            found.cost(layer.name, choice)
    return found


def in_profile(source: str, choices: Sequence[Choice]) -> tuple[Choice, ...]:
    """Those of some choices that every layer of a profile has a figure of; all, if there are none.

    Raises:
        ProfileError: the file is none.
    """
    layers = Profile.load(Path(source)).layers.values()
    found = tuple(
        choice
        for choice in choices
        if all(each.plain in one.figures for one in layers for each in choice.of_quantizers)
    )
    return found if any(each.quantized for each in found) else tuple(choices)
