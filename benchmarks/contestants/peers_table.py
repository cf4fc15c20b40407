"""The table of peers.py."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]
TITLES = (
    "model", "bits", "peer and its best setting", "stored bytes", "ours", "SQNR of ε (dB)", "ours",
    "ours − peer", "FD-Lite0", "ours", "ours − peer", "R-precision", "ours", "ours − peer",
    "PSNR, ours − peer (dB)", "notes",
)  # fmt: skip


def markdown(rows: list[Row]) -> str:
    """A line per model, peer and width."""
    lines = [f"| {' | '.join(TITLES)} |", "|---" * len(TITLES) + "|", *map(line, rows)]
    done = [row for row in rows if "reason" not in row]
    if done:
        context = done[0]["context"]
        versions = sorted(
            {f"{n} {v}" for row in done for n, v in row["peer_side"]["versions"].items()}
        )
        lines += [
            "",
            f"{context['images']} images per side, seeds {context['seed']} and following, each "
            "model at its default steps, float32 between layers. Each peer is represented by its "
            "setting of the least noise at that width; ours is the plan of the recipe `auto` whose "
            "budget is the peer's stored bytes of the denoiser. FD-Lite0 is measured against the "
            "original's images. Differences are paired, with 95% intervals: bootstrap, and for "
            "FD-Lite0 a jackknife over ten groups of images. SQNR is the larger the better, "
            f"FD-Lite0 the smaller. {'; '.join(versions)}; {context['machine']}.",
        ]
    return "\n".join(lines) + "\n"


def line(row: Row) -> str:
    if "reason" in row:
        head = (row["model"], row["setting"], row["peer"])
        empty = ("",) * (len(TITLES) - 4)
        return f"| {' | '.join((*head, *empty, escaped(row['reason'])))} |"
    theirs, ours, less = row["peer_side"], row["our_side"], row["difference"]
    cells = (
        row["model"], row["setting"], f"{row['peer']}: {row['label']}",
        f"{theirs['stored_bytes']:,}", f"{ours['stored_bytes']:,}",
        f"{theirs['sqnr_db']['value']:.2f}", f"{ours['sqnr_db']['value']:.2f}",
        spread(less["sqnr_db"], 2),
        f"{theirs['fd_lite0']:.3f}", f"{ours['fd_lite0']:.3f}", spread(less["fd_lite0"], 3),
        f"{theirs['r_precision']['value']:.3f}", f"{ours['r_precision']['value']:.3f}",
        spread(less["r_precision"], 3), spread(less["psnr_db"], 2),
        escaped("; ".join(filter(None, [theirs["note"], *theirs["failed"]]))),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def spread(value: dict[str, float], digits: int) -> str:
    return f"{value['value']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
