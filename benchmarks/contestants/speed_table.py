"""The table of speed.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .denoisers import DENOISERS

Row = dict[str, Any]
TITLES = (
    "contestant", "bits", "floating in", "× fp32", "× 16 bits", "error", "peak memory",
    "of 16 bits", "stored bytes", "load (s)", "first call (s)", "notes",
)  # fmt: skip
MEBI = 2**20


def markdown(rows: list[Row], machines: dict[str, Any]) -> str:
    """A table per machine, denoiser and batch."""
    lines: list[str] = []
    groups = dict.fromkeys((row["machine"], row["denoiser"], row["batch"]) for row in rows)
    previous = None
    for machine, denoiser, batch in groups:
        if machine != previous:
            lines += [f"# {machine}", ""]
            previous = machine
        group = [r for r in rows if (r["machine"], r["denoiser"], r["batch"])
                 == (machine, denoiser, batch)]  # fmt: skip
        lines += [f"## {DENOISERS[denoiser].title}, batch {batch}", ""]
        lines += [*table([cells(row, group) for row in group]), ""]
    versions = {
        f"{name} {version}" for row in rows for name, version in row.get("versions", {}).items()
    }
    repeats = sorted({row["repeats"] for row in rows})
    lines += [
        "Speed: ratio of the medians of calls in turns, contestant and baseline in the same run, "
        f"and the span of that ratio over the rounds ({', '.join(map(str, repeats))} of them after "
        "warm-up). Rows may come from several runs, each with the baseline in it. Error: "
        "‖y - y₃₂‖ / ‖y₃₂‖ of the output. Peak memory: of the process during calls, less what it "
        "held before the denoiser was loaded (on CUDA: of the device). " + "; ".join(
            sorted(versions)
        ) + ".",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Lines of Markdown, without the columns that are empty in all rows."""
    kept = [index for index in range(len(TITLES)) if any(row[index] for row in rows)]
    lines = [TITLES, ("---",) * len(TITLES), *rows]
    return [f"| {' | '.join(one[index] for index in kept)} |" for one in lines]


def cells(row: Row, group: list[Row]) -> tuple[str, ...]:
    """One for each of `TITLES`."""
    head = (row["contestant"], row["bits"], row["dtype"])
    if "reason" in row:
        return (*head, *("",) * (len(TITLES) - len(head) - 1), escaped(row["reason"]))
    peak, reference = peak_of(row), sixteen_bits_peak(group)
    return (
        *head,
        ratio(row["speedup"].get("torch-fp32")),
        ratio(next((v for k, v in row["speedup"].items() if k != "torch-fp32"), None)),
        f"{row['relative_error']:.1e}",
        f"{peak / MEBI:,.0f} MiB",
        f"{peak / reference:.2f}" if reference else "",
        f"{row['stored_bytes']:,}",
        f"{row['load_s']:.1f}",
        f"{row['first_call_s']:.1f}",
        escaped(row["note"]),
    )


def peak_of(row: Row) -> int:
    device = row.get("device_peak_bytes")
    return int(row["peak_bytes"] - row["bare_bytes"] if device is None else device)


def sixteen_bits_peak(group: Iterable[Row]) -> int | None:
    """Peak of eager torch in 16 bits: float16, or bfloat16 where that is not run."""
    found = {row["contestant"]: row for row in group if "reason" not in row}
    row = found.get("torch-fp16") or found.get("torch-bf16")
    return peak_of(row) if row else None


def ratio(value: dict[str, float] | None) -> str:
    if value is None:
        return ""
    return f"{value['ratio']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"


def escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
