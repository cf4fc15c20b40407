"""Profiles for people."""

from __future__ import annotations

from collections import Counter

from rich.markup import escape
from rich.table import Table

from mezzotint._tables import titled_table
from mezzotint.profiling.profile import LayerProfile, Profile

_SLOWEST = 20
"""Layers in the table."""


def slowest_table(profile: Profile) -> Table:
    """A row for each of the layers that take most of the time."""
    title = (
        f"{escape(profile.model or profile.denoiser)}: {profile.milliseconds:.2f} ms a call, batch "
        f"{profile.batch}, {profile.machine.threads} threads; slowest of {len(profile.layers)} "
        "layers"
    )
    table = titled_table(title, "layer", "work", "float ms:", "share:", "fastest packed", "ms:")
    ranked = sorted(profile.layers.items(), key=lambda item: -item[1].floating)
    for name, layer in ranked[:_SLOWEST]:
        work = "; ".join(dict.fromkeys(layer.runs)) or "not run"
        figures = (f"{layer.floating:.3f}", f"{_ratio(layer.floating, profile):.1%}")
        table.add_row(*map(escape, (name, work, *figures, *_fastest(layer))))
    return table


def totals_table(profile: Profile) -> Table:
    """A row for each choice that all layers could take."""
    title = f"If every layer took one choice ({profile.rest:.2f} ms of it no choice changes)"
    table = titled_table(title, "choice", "layers ms:", "denoiser ms:", "of float:", "kernels")
    for choice in profile.choices:
        total = profile.total(choice)
        counts = Counter(each.figures[choice].kernel for each in profile.layers.values())
        kernels = ", ".join(f"{count} × {name}" for name, count in counts.most_common())
        ratio = f"{_ratio(total, profile):.2f}x"
        figures = (f"{total - profile.rest:.2f}", f"{total:.2f}", ratio)
        table.add_row(*map(escape, (str(choice), *figures, kernels)))
    return table


def _fastest(layer: LayerProfile) -> tuple[str, str]:
    """The packed choice of the least time, and that time."""
    packed = {c: figure.milliseconds for c, figure in layer.figures.items() if c.quantized}
    if not packed:
        return "", ""
    best = min(packed, key=lambda choice: packed[choice])
    return str(best), f"{packed[best]:.3f}"


def _ratio(milliseconds: float, profile: Profile) -> float:
    return milliseconds / profile.milliseconds if profile.milliseconds else 0.0
