"""Tables for people, of values that the library returns."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.table import Table

from mezzotint._tables import titled_table

if TYPE_CHECKING:
    from pathlib import Path

    from mezzotint._verified_file import VerifiedFile
    from mezzotint.allocation import Allocation
    from mezzotint.labels import Labels
    from mezzotint.models import Layer
    from mezzotint.plan import Difference, Plan, Planned
    from mezzotint.recipes import OptionHelp
    from mezzotint.report import Finding
    from mezzotint.runtime import Execution


def layers_table(layers: Sequence[Layer], title: str) -> Table:
    """A row per floating-point layer."""
    table = titled_table(
        title, "layer", "kind", "role", "weight", "parameters:", "MACs:", "quantizable"
    )
    for layer in layers:
        table.add_row(
            layer.name,
            layer.kind,
            layer.role.value,
            "×".join(map(str, layer.weight_shape)),
            f"{layer.parameters:,}",
            "?" if layer.macs is None else f"{layer.macs:,}",
            "yes" if layer.supported else "no",
        )
    return table


def packed_table(executions: Sequence[Execution], title: str) -> Table:
    """A row per packed layer."""
    table = titled_table(
        title, "layer", "weight", "activation", "structures", "kernel", "arithmetic"
    )
    for each in executions:
        choice = each.choice
        formats = (choice.weight_label, choice.activation, choice.label)
        table.add_row(each.layer, *formats, each.kernel, each.products)
    return table


def verified_table(files: Sequence[VerifiedFile]) -> Table:
    """A row per file of a checkpoint."""
    table = titled_table("Verified", "file", "tensors:", "bytes:", "as it was saved")
    for each in files:
        verdict = "yes" if each.verified else "unknown: has no digests"
        table.add_row(each.name, f"{each.tensors:,}", f"{each.nbytes:,}", verdict)
    return table


def kernels_table(executions: Sequence[Execution]) -> Table:
    """Count of layers per kernel, with the reasons against faster ones."""
    table = titled_table("Kernels", "kernel", "arithmetic", "layers:", "why not a faster one")
    counts = Counter((each.kernel, each.products, each.reason) for each in executions)
    for (kernel, products, reason), count in counts.most_common():
        table.add_row(kernel, products, str(count), reason or "")
    return table


def floating_table(plan: Plan) -> Table:
    """A row per layer whose weight or input stays floating for a reason."""
    from mezzotint.formats import FLOAT

    table = titled_table("Left floating", "layer", "weight", "activation", "reason")
    for name, choice in plan.choices.items():
        if FLOAT in (choice.weight, choice.activation) and name in plan.reasons:
            table.add_row(name, choice.weight_label, choice.activation, plan.reasons[name])
    return table


def latency_table(plan: Plan) -> list[Table]:
    """Predicted latency of the plan, if it has one; no table otherwise.

    Raises:
        PlanError: the plan's context is malformed there.
    """
    from mezzotint.profiling import plan_latency

    found = plan_latency(plan)
    if found is None:
        return []
    table = titled_table("Latency of one denoiser call", "", "ms:", "of float:")
    for name, milliseconds in (
        ("predicted", found.predicted_ms),
        ("asked for, at most", found.limit_ms),
        ("floating, measured", found.float_ms),
    ):
        table.add_row(name, f"{milliseconds:.3f}", f"{milliseconds / found.float_ms:.3f}x")
    where = f"{found.processor}, {found.device}, batch {found.batch}"
    table.caption = f"profile of machine {found.machine}: {where}"
    return [table]


def bits_table(plan: Plan) -> list[Table]:
    """Bits per weight, nominal and stored, of a plan that says them; no table otherwise."""
    found = plan.context.get("bits")
    if not isinstance(found, Mapping):
        return []
    table = titled_table("Bits per weight", "", "bits:")
    for name, text in (
        ("nominal", "nominal, without exceptions"),
        ("with_exceptions", "nominal, all layers"),
        ("stored", "stored, scales and structures included"),
        ("denoiser", "stored, whole denoiser"),
    ):
        if isinstance(found.get(name), int | float):
            table.add_row(text, f"{found[name]:.3f}")
    return [table]


def training_table(curve: Mapping[str, Any]) -> Table:
    """Updates, minutes and loss of a training, from the JSON of its curve."""
    table = titled_table("Training", "", "value:")
    table.add_row("updates", f"{curve['updates']:,}")
    table.add_row("minutes", f"{curve['minutes']:.1f}")
    if curve["points"]:
        table.add_row("loss at first", f"{curve['points'][0]['loss']:.4g}")
        table.add_row("loss at last", f"{curve['points'][-1]['loss']:.4g}")
    return table


def labels_table(labels: Labels) -> Table:
    """Number, range and accuracy of labels, and the stored bits of their configurations."""
    table = titled_table(f"Labels by {labels.context['metric']}", "", "value:")
    table.add_row("labels", f"{len(labels):,}")
    if labels.ruined:
        table.add_row("configurations that ruin the model", f"{labels.ruined:,}")
    values = sorted(labels.values.tolist())
    for name, value in (("best", values[0]), ("median", median(values)), ("worst", values[-1])):
        table.add_row(name, f"{value:.4g}")
    table.add_row("standard error, median", f"{median(labels.errors_of_values.tolist()):.2g}")
    if labels.floor is not None:
        table.add_row("floor: the floating model", f"{labels.floor:.4g}")
    table.add_row("stored bits", f"{labels.bits.min():.3f} to {labels.bits.max():.3f}")
    return table


def findings_table(findings: Sequence[Finding], page: Path) -> Table:
    """A row per published finding, and where the page is."""
    table = titled_table(
        f"Published findings, judged: see {page}", "finding", "at equal", "verdict"
    )
    for each in findings:
        table.add_row(each.claim, each.judged_at, each.verdict)
    return table


def differences_table(differences: Sequence[Difference], left: str, right: str) -> Table:
    """A row per layer on which two plans disagree."""
    table = titled_table(f"{len(differences)} layers differ", "layer", left, right)
    for each in differences:
        left_cell, right_cell = _shown(each)
        table.add_row(each.layer, left_cell, right_cell)
    return table


def calibration_table(
    settings: Mapping[str, tuple[object, object]], left: str, right: str
) -> Table:
    """A row per setting of the calibration in which two plans disagree."""
    table = titled_table("Calibrated otherwise", "setting", left, right)
    for name, pair in settings.items():
        table.add_row(name, *("none" if each is None else str(each) for each in pair))
    return table


def allocation_table(
    allocation: Allocation, widths: Sequence[int], protected: Sequence[str]
) -> Table:
    """A row per width with its layers, and what the choice amounts to."""
    counts = Counter(allocation.bits.values())
    table = titled_table(f"{len(allocation.bits)} layers", "", "value:")
    for width in widths:
        table.add_row(f"layers at {width} bits", f"{counts[width]:,}")
    table.add_row("average bits", f"{allocation.average:.4f}")
    table.add_row("objective", f"{allocation.objective:.6g}")
    table.add_row("gap", f"{allocation.gap:.1e}" if allocation.gap else "0, proven optimal")
    table.add_row("layers protected", f"{len(protected):,}")
    for name in protected:
        table.add_row("", name)
    return table


def recipes_table(recipes: Sequence[dict[str, str]]) -> Table:
    """A row per recipe."""
    table = titled_table("Recipes", "name", "what it does")
    for each in recipes:
        table.add_row(each["name"], each["summary"])
    return table


def options_table(recipe: str, options: Sequence[OptionHelp]) -> Table:
    """A row per option of a recipe."""
    table = titled_table(f"Options of {recipe}", "option", "default", "meaning")
    for each in options:
        table.add_row(each.flag, each.default, each.text)
    return table


def models_table(models: Sequence[dict[str, str]]) -> Table:
    """A row per embedded model."""
    table = titled_table("Embedded models", "name", "folder")
    for model in models:
        table.add_row(model["name"], model["folder"])
    return table


def _shown(difference: Difference) -> tuple[str, str]:
    """The two sides; with their encodings where these are the difference."""
    left, right = difference.left, difference.right
    encodings = {None if each is None else each.encoding for each in (left, right)} - {None}

    def text(side: Planned | None) -> str:
        if side is None:
            return "(no such layer)"
        told = len(encodings) > 1 and side.encoding is not None
        return f"{side.choice}; {side.encoding}" if told else str(side.choice)

    return text(left), text(right)
