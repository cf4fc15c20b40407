"""Pictures as inline SVG, drawn by matplotlib."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from mezzotint.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_drawing(what: str) -> None:
    """Refuse pictures where nothing draws them.

    Args:
        what: has the pictures, for the message.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401, PLC0415  (an extra)
    except ImportError as cause:
        raise UsageError(
            f"{what}: pictures need matplotlib; install mezzotint[predictor]"
        ) from cause


def drawn(name: str, size: tuple[float, float], draw: Callable[[Figure], None], what: str) -> str:
    """The SVG element alone; its identifiers differ from those of other pictures of a page.

    Args:
        name: of the picture, part of its identifiers.
        size: width and height in inches.
        draw: fills the figure.
        what: as of `check_drawing`.

    Raises:
        UsageError: matplotlib is not installed.
    """
    check_drawing(what)
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    buffer = io.StringIO()
    # Text stays text, and names of layers are no formulas.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # matplotlib numbers its groups in every figure alike.
    return re.sub(r'\bid="([\w.]+_\d+)"', rf'id="{name}-\1"', text)
