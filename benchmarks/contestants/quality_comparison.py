"""One peer's setting against our plan of the same stored bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mezzotint as mz
from mezzotint.evaluation import Baseline, module_bytes
from mezzotint.models import find_denoiser, generate
from mezzotint.recipes.default_prompts import default_sampling

from .denoisers import ZOO
from .environments import Environment
from .figures import Sample, differences, noise_of
from .messages import Request
from .quality_contestants import Candidate, candidates
from .worker_process import FailedError, WorkerProcess

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class QualityComparison:
    """One model's original against its peers' and our quantized ones.

    Attributes:
        calls: file with the baseline's denoiser calls.
        timeout: seconds that one request may take.
        made: our samples so far; plans of equal choices have the same.
    """

    model: str
    baseline: Baseline
    calls: Path
    cache: Path
    threads: int
    timeout: float
    made: dict[frozenset[tuple[str, mz.Choice]], tuple[int, Sample]] = field(default_factory=dict)

    def row(self, peer: str, setting: str) -> Row:
        """Both sides' figures and their differences, or the reason why there are none."""
        head = {"model": self.model, "peer": peer, "setting": setting}
        try:
            label, figures, theirs = self._best(peer, setting)
            ours = self._ours(figures["stored_bytes"], 8 if setting.endswith("A8") else 16)
        except (FailedError, mz.MezzotintError) as cause:
            return head | {"reason": str(cause)}
        return (
            head
            | {"label": label, "peer_side": figures | theirs.to_dict()}
            | {"our_side": {"stored_bytes": ours[0]} | ours[1].to_dict()}
            | {"difference": differences(ours[1], theirs)}
        )

    def _best(self, peer: str, setting: str) -> tuple[str, Row, Sample]:
        """The peer's candidate of the least noise, its cost and its sample."""
        offered = candidates(peer, setting)
        if not offered:
            raise FailedError(f"has no such width: {setting}")
        problem = Environment(offered[0].environment, self.cache).make()
        if problem:
            raise FailedError(problem)
        noises: dict[Candidate, float] = {}
        reasons = []
        for candidate in offered if len(offered) > 1 else ():
            try:
                with self._pipeline(candidate) as (worker, _):
                    noises[candidate] = float(
                        noise_of(self.baseline, self._replayed(worker)).mean()
                    )
            except FailedError as cause:
                reasons.append(f"{candidate.label}: {cause}")
        if len(offered) > 1 and not noises:
            raise FailedError("; ".join(reasons))
        best = min(noises, key=lambda one: noises[one]) if noises else offered[0]
        with self._pipeline(best) as (worker, figures):
            outputs = self._replayed(worker)
            images = self._generated(worker)
        figures["candidates"] = {one.label: float(-10 * np.log10(n)) for one, n in noises.items()}
        figures["failed"] = reasons
        return best.label, figures, Sample(self.baseline, images, outputs)

    @contextmanager
    def _pipeline(self, candidate: Candidate) -> Iterator[tuple[WorkerProcess, Row]]:
        component, denoiser = find_denoiser(self.baseline.pipe)
        few = default_sampling(self.baseline.pipe)
        name = f"{self.model}-{candidate.tool}-{candidate.label}".replace(", ", "-")
        name = name.replace(" ", "-")
        request = Request(
            tool=candidate.tool,
            options=candidate.options,
            folder=str(ZOO / self.model / component),
            class_name=type(denoiser).__name__,
            prepared=str(self.cache.resolve() / "prepared" / name),
            dtype="float32",
            device="cpu",
            threads=self.threads,
        )
        environment = Environment(candidate.environment, self.cache)
        with WorkerProcess(name, environment, self.threads, self.cache / "logs") as worker:
            figures = worker.ask(
                "pipeline",
                self.timeout,
                model=self.model,
                request=request.to_dict(),
                prompts=list(few.prompts),
                seed=few.seed,
            )
            yield worker, figures

    def _replayed(self, worker: WorkerProcess) -> list[np.ndarray]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "outputs.npz"
            worker.ask("replay", self.timeout, calls=str(self.calls.resolve()), path=str(path))
            with np.load(path) as outputs:
                return [outputs[str(index)] for index in range(len(outputs.files))]

    def _generated(self, worker: WorkerProcess) -> np.ndarray:
        sampling = self.baseline.sampling
        wanted = {"prompts": sampling.prompts, "seed": sampling.seed, "batch": sampling.batch}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "images.npy"
            worker.ask("generate", self.timeout, path=str(path), sampling=wanted)
            images: np.ndarray = np.load(path)
        return images

    def _ours(self, size: int, act_bits: int) -> tuple[int, Sample]:
        journal = self.cache / "journals" / f"{self.model}-a{act_bits}.jsonl"
        journal.parent.mkdir(parents=True, exist_ok=True)
        budget = mz.Budget(size=size, act_bits=act_bits)
        result = mz.quantize(self.baseline.pipe, budget=budget, journal=journal)
        key = frozenset(result.plan.choices.items())
        if key not in self.made:
            with torch.no_grad():
                outputs = [call.run(result.denoiser).numpy() for call in self.baseline.calls]
            images = generate(result.pipeline, self.baseline.sampling)
            self.made[key] = module_bytes(result.denoiser), Sample(self.baseline, images, outputs)
        return self.made[key]
