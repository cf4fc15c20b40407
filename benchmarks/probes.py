"""Sensitivities by probes against measuring every format of every layer, on the embedded models.

For each model: the noise of every weight format and every input format of every layer, all else
floating, measured one by one and predicted by probes from the same recorded calls; how well the two
agree, what each takes of the processor, and the real noise, on other prompts, of the plans that
either leads to under the same bytes. Weights are encoded beforehand, for both alike. Prints a
Markdown table and writes it with all figures to benchmarks/results/.

    python benchmarks/probes.py [--models emoji-turbo emoji-dit] [--probes 64] [--bits 3 4]
                                [--layers 0]

`--layers N` takes every N-th layer only, for a quick look. `--shape sd15` times single probes of a
U-Net of that shape with random weights instead, and reports what all of them would take. What it
has encoded stays in a folder: run it again to go on.

    python benchmarks/probes.py --shape sd15 [--probes 64] [--timed 3] [--cache .cache/encoded]
                                [--formats int4/channel lut4/channel]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contestants.clock import Clock
from contestants.hardware import describe
from contestants.kept_weights import KeptWeights
from diffusers import UNet2DConditionModel
from scipy.stats import spearmanr
from torch import Tensor, nn

import mezzotint as mz
from mezzotint._files import write_json
from mezzotint._journal import Journal
from mezzotint.allocation import (
    Limit,
    Option,
    Problem,
    Relaxation,
    bootstrapped_regret,
    solve,
)
from mezzotint.formats import parse_activation_format
from mezzotint.measuring import (
    InProcess,
    InputCandidate,
    InputChange,
    LayerCandidates,
    LayerChange,
    Noise,
    Original,
    PlanChange,
    Prober,
    Projections,
    Task,
    decibels,
    draw_probes,
    measure,
    measure_layers,
)
from mezzotint.models import Call, find_denoiser, inventory, record_calls
from mezzotint.plan import Budget, CallSelection, Choice, Encoding, Plan
from mezzotint.recipes import Job
from mezzotint.recipes.auto.estimates import Estimates
from mezzotint.recipes.costs import choice_bytes
from mezzotint.recipes.default_prompts import default_sampling
from mezzotint.recipes.study import Study
from mezzotint.runtime import Calibration
from mezzotint.runtime.encoded import EncodedWeights, LayerToEncode

MODELS = ("emoji-turbo", "emoji-dit")
WEIGHTS = (
    *(f"int{bits}/channel" for bits in (2, 3, 4, 5, 6, 8)),
    *(f"lut{bits}/channel" for bits in (2, 3, 4, 5, 6)),
)
INPUTS = ("int8/token", "uint8/token")
ENCODING = Encoding()
RESULTS = Path(__file__).parent / "results"
RESAMPLES = 40

Losses = Mapping[str, Mapping[str, float]]
"""Layer → format → noise."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--probes", type=int, default=64)
    parser.add_argument("--bits", nargs="+", type=int, choices=(2, 3, 4, 5, 6), default=(3, 4))
    parser.add_argument("--layers", type=int, default=0)
    parser.add_argument("--shape", choices=("sd15",))
    parser.add_argument("--timed", type=int, default=3)
    parser.add_argument("--formats", nargs="+", default=WEIGHTS)
    parser.add_argument("--cache", type=Path, default=Path(".cache/encoded"), help="see --shape")
    parser.add_argument("--results", type=Path, default=RESULTS / "probes.json")
    arguments = parser.parse_args()
    path = arguments.results
    result: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    machine = describe("cpu", torch.get_num_threads())
    if arguments.shape is not None:
        timed = timed_probes(arguments)
        rows = {**result.get("shapes", {}), arguments.shape: {**timed, "machine": machine}}
        result["shapes"] = rows
    else:
        for model in arguments.models:
            row = compared(model, arguments)
            result.setdefault("models", {})[model] = {**row, "machine": machine}
    write_json(path, result)
    path.with_suffix(".md").write_text(markdown(result), "utf-8")
    print(markdown(result))


@dataclass(eq=False)
class Subject:
    """A denoiser, its calls and candidates, and what it stores under each."""

    denoiser: nn.Module
    calls: tuple[Call, ...]
    candidates: Mapping[str, tuple[Choice, ...]]
    calibration: Calibration
    encoding: Clock = field(default_factory=Clock)

    def weight(self, name: str, choice: Choice) -> tuple[Tensor, Tensor | None]:
        layer, known = self.denoiser.get_submodule(name), self.calibration
        assert known.encoded is not None
        return known.encoded.weight(LayerToEncode(name, layer, choice, ENCODING, known)), None

    def encode(self) -> None:
        """Encode all candidates: no part of either way."""
        with self.encoding.running():
            for name, choices in self.candidates.items():
                for choice in choices:
                    self.weight(name, choice)

    def prober(self) -> Prober:
        inputs = {name: InputCandidate(parse_activation_format(name)) for name in INPUTS}
        asked = {
            name: LayerCandidates(
                tuple(choice.weight for choice in choices), inputs, choices[0].structures
            )
            for name, choices in self.candidates.items()
        }
        return Prober(self.denoiser, self.calls, asked, self.weight, calibration=self.calibration)

    def probed(self, count: int, clock: Clock) -> Projections:
        with clock.running():
            return self.prober().run(draw_probes(self.calls, count), Journal(None, {}))

    def measured(self, clock: Clock) -> tuple[Losses, Losses]:
        """Noise of every weight and of every input."""
        weights = [
            LayerChange(name, choice, ENCODING)
            for name, choices in self.candidates.items()
            for choice in choices
        ]
        inputs = [
            InputChange(name, dataclasses.replace(choices[0], activation=each))
            for name, choices in self.candidates.items()
            for each in INPUTS
        ]
        found = []
        for changes, key in ((weights, "weight"), (inputs, "activation")):
            executor = InProcess(Original(self.denoiser, self.calls, self.calibration))
            with clock.running():
                figures = measure_layers(changes, Noise(), executor, Journal(None, {}))
            found.append(
                {
                    name: {getattr(choice, key): one["noise"] for choice, one in each.items()}
                    for name, each in figures.items()
                }
            )
        return found[0], found[1]

    def noise(self, plan: Plan, calls: tuple[Call, ...]) -> float:
        executor = InProcess(Original(self.denoiser, calls, self.calibration))
        task = Task(PlanChange(plan), Noise())
        return measure([task], executor, Journal(None, {}))[0]["noise"]


def compared(model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One embedded model: agreement, time, and plans."""
    pipe = mz.load(model)
    prompts = default_sampling(pipe, 16)
    sampling, others = (
        dataclasses.replace(prompts, prompts=half)
        for half in (prompts.prompts[:8], prompts.prompts[8:])
    )
    selection = CallSelection()
    job = Job(find_denoiser(pipe)[1], model, Budget(), pipe, sampling)
    study = Study.of(job, bos=True, shortcuts="shortcuts", momentum=None, selection=selection)
    choices = study.structured([Choice(weight) for weight in arguments.formats])
    names = list(choices)[:: max(arguments.layers, 1)]
    calibration = Calibration(tensors=study.structures.constants, encoded=EncodedWeights())
    candidates = {name: choices[name] for name in names}
    subject = Subject(job.denoiser, study.calls, candidates, calibration)
    subject.encode()
    clocks = {"measured": Clock(), "probes": Clock()}
    found = subject.probed(arguments.probes, clocks["probes"])
    weights, inputs = subject.measured(clocks["measured"])
    estimated = {
        "weights": _losses(found.weights, found.noise_of_weight),
        "inputs": _losses(found.inputs, found.noise_of_input),
    }
    held_out = record_calls(pipe, others, selection)
    sizes = {
        layer.name: {
            choice: choice_bytes(layer, choice, study.weight(layer))
            for choice in choices[layer.name]
        }
        for layer in study.layers
        if layer.name in names
    }
    plans = [planned(subject, weights, found, bits, sizes, held_out) for bits in arguments.bits]
    print(model, {name: clock.processor for name, clock in clocks.items()}, flush=True)
    return {
        "layers": len(names),
        "calls": len(study.calls),
        "samples": sum(len(call.output) for call in study.calls if call.output is not None),
        "probes": arguments.probes,
        "weights": agreement(weights, estimated["weights"]),
        "inputs": agreement(inputs, estimated["inputs"]),
        "plans": plans,
        "seconds": {name: dataclasses.asdict(clock) for name, clock in clocks.items()},
        "times_less": clocks["measured"].processor / clocks["probes"].processor,
        "encoding_seconds": dataclasses.asdict(subject.encoding),
    }


def _losses(projections: Mapping[str, Mapping[str, Any]], noise: Any) -> Losses:
    return {name: {key: noise(name, key) for key in each} for name, each in projections.items()}


def agreement(measured: Losses, estimated: Losses) -> dict[str, float]:
    """Rank correlation, and error of the decimal logarithm, over all that is not free of noise."""
    pairs = [
        (noise, estimated[name][key])
        for name, each in measured.items()
        for key, noise in each.items()
        if noise > 0 and estimated[name][key] > 0
    ]
    real, found = np.log10(np.array(pairs)).T
    return {
        "changes": len(pairs),
        "spearman": float(spearmanr(real, found).statistic),
        "log10_rms": float(np.sqrt(np.mean((found - real) ** 2))),
        "log10_bias": float(np.mean(found - real)),
    }


def planned(
    subject: Subject,
    measured: Losses,
    projections: Projections,
    bits: int,
    sizes: Mapping[str, Mapping[Choice, int]],
    calls: tuple[Call, ...],
) -> dict[str, Any]:
    """Plans by either under the bytes of uniform integers of that width."""
    uniform = f"int{bits}/channel"
    most = sum(size for each in sizes.values() for c, size in each.items() if c.weight == uniform)
    limits = [Limit("bytes", most)]

    estimated = _losses(projections.weights, projections.noise_of_weight)

    def problem(losses: Losses) -> Problem:
        return Problem(
            {
                name: tuple(
                    Option(choice, -losses[name][choice.weight], {"bytes": size})
                    for choice, size in each.items()
                )
                for name, each in sizes.items()
            }
        )

    def by_choice(losses: Losses) -> dict[str, dict[Choice, float]]:
        return {name: {c: losses[name][c.weight] for c in each} for name, each in sizes.items()}

    def lost(plan: Mapping[str, Any]) -> float:
        return math.fsum(estimated[name][choice.weight] for name, choice in plan.items())

    problems = {"measured": problem(measured), "probes": problem(estimated)}
    solutions = {name: solve(each, limits) for name, each in problems.items()}
    noises = {
        name: subject.noise(Plan(dict(each.chosen), encoding=ENCODING), calls)
        for name, each in solutions.items()
    }
    doubted = Relaxation.of(_costs(sizes), limits)
    rng = np.random.default_rng(0)
    others = []
    for sampled in Estimates(projections).resampled(rng, RESAMPLES):
        other = doubted.solve(by_choice(sampled.weights))
        assert other is not None, "the plan itself is within the limits"
        others.append(lost(other))
    regret = bootstrapped_regret(lost(solutions["probes"].chosen), others)
    alike = [
        solutions["probes"].chosen[name] == solutions["measured"].chosen[name] for name in sizes
    ]
    return {
        "bits": bits,
        "bytes": most,
        "noise": noises,
        "ratio": noises["probes"] / noises["measured"],
        "sqnr": {name: decibels(noise) for name, noise in noises.items()},
        "same_choice": sum(alike) / len(alike),
        "regret_bound": regret.bound,
    }


def _costs(sizes: Mapping[str, Mapping[Choice, int]]) -> dict[str, dict[Choice, dict[str, int]]]:
    return {name: {c: {"bytes": n} for c, n in each.items()} for name, each in sizes.items()}


def timed_probes(arguments: argparse.Namespace) -> dict[str, Any]:
    """A U-Net of the shape of Stable Diffusion 1.5 with random weights."""
    torch.manual_seed(0)
    denoiser = UNet2DConditionModel(sample_size=64, cross_attention_dim=768).eval()
    args = (torch.randn(2, 4, 64, 64), torch.tensor(500))
    text = {"encoder_hidden_states": torch.randn(2, 77, 768)}
    with torch.no_grad():
        call = Call(args, text, Call(args, text).run(denoiser))
    names = [layer.name for layer in inventory(denoiser, call) if layer.supported]
    weights = KeptWeights(arguments.cache, denoiser)
    encoding = weights.encode(names, arguments.formats)
    inputs = {name: InputCandidate(parse_activation_format(name)) for name in INPUTS}
    asked = dict.fromkeys(names, LayerCandidates(tuple(arguments.formats), inputs))
    prober = Prober(denoiser, (call,), asked, weights.weight_of)
    probes, timed, journal = arguments.probes, arguments.timed, Journal(None, {})
    drawn = draw_probes((call,), timed + 1)
    first, rest = Clock(), Clock()
    with first.running():  # with what is done once: trying rows, memory
        prober.run(drawn[:1], journal)
    print(f"the first probe took {first.wall:.0f} s", flush=True)
    with rest.running():
        prober.run(drawn, journal)
    each = {name: value / timed for name, value in dataclasses.asdict(rest).items()}
    return {
        "layers": len(names),
        "formats": list(arguments.formats),
        "inputs": list(INPUTS),
        "seconds_per_probe": each,
        "probes": probes,
        "minutes": probes * each["wall"] / 60,
        "encoding_seconds": dataclasses.asdict(encoding),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "timed": timed,
    }


def markdown(result: dict[str, Any]) -> str:
    lines: list[str] = []
    models = result.get("models", {})
    if models:
        lines += [
            "| model | changes | Spearman (weights / inputs) | log10 error, rms "
            "| processor seconds (measured / probes) | less by |",
            "|---|---|---|---|---|---|",
        ]
    for model, row in models.items():
        weights, inputs, seconds = row["weights"], row["inputs"], row["seconds"]
        lines.append(
            f"| {model} | {weights['changes'] + inputs['changes']} "
            f"| {weights['spearman']:.4f} / {inputs['spearman']:.4f} "
            f"| {weights['log10_rms']:.2f} / {inputs['log10_rms']:.2f} "
            f"| {seconds['measured']['processor']:.0f} / {seconds['probes']['processor']:.1f} "
            f"| {row['times_less']:.1f}× |"
        )
    if models:
        lines += [
            "",
            "| model | bits | SQNR of the plan, dB (measured / probes) | noise, ratio "
            "| same choice | bound on the regret |",
            "|---|---|---|---|---|---|",
        ]
    for model, row in models.items():
        for plan in row["plans"]:
            lines.append(
                f"| {model} | {plan['bits']} | {plan['sqnr']['measured']:.2f} / "
                f"{plan['sqnr']['probes']:.2f} | {plan['ratio']:.3f} | {plan['same_choice']:.0%} "
                f"| {plan['regret_bound']:.1%} |"
            )
    for model, row in models.items():
        lines += [
            "",
            f"{model}: {row['layers']} layers, {row['probes']} probes of {row['samples']} samples "
            f"in {row['calls']} calls; plans on other prompts; encoding, on neither side: "
            f"{row['encoding_seconds']['processor']:.0f} processor seconds; "
            f"{row['machine']['cpu']}.",
        ]
    for shape, row in result.get("shapes", {}).items():
        lines += [
            "",
            f"{shape}, random weights: {row['layers']} layers × {len(row['formats'])} weight and "
            f"{len(row['inputs'])} input formats: {row['seconds_per_probe']['wall']:.1f} s per "
            f"probe, {row['minutes']:.0f} minutes for {row['probes']} (calculated from "
            f"{row['timed']}); encoding {row['encoding_seconds']['wall'] / 60:.0f} minutes; peak "
            f"memory {row['peak_bytes'] / 2**30:.1f} GiB; {row['machine']['cpu']}.",
        ]
    return "\n".join(lines).strip() + "\n"


if __name__ == "__main__":
    main()
