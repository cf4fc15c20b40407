"""Encodings of candidate weights under the recipe's options."""

from __future__ import annotations

from dataclasses import replace

from mezzotint.plan import Encoding
from mezzotint.recipes.auto.options import Auto


def encodings(options: Auto) -> tuple[Encoding, Encoding]:
    """The encoding of all candidates, and that by which inputs are calibrated.

    Means of inputs are there for biases that are tried at the end as well.
    """
    encoding = Encoding(
        options.search,
        options.rounding,
        bias_correction=options.bias_correction == "always",
        clip=options.clips[0],
    )
    return encoding, replace(encoding, bias_correction=options.bias_correction != "never")
