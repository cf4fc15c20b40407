"""The module that layers of related roles share: an attention, a feed-forward, a residual block."""

from __future__ import annotations

from mezzotint.models.roles import FEED_FORWARD_NAME, Role

_RESIDUAL = frozenset({Role.RESNET_CONV, Role.TIME_PROJECTION})


def unit_of(layer: str, role: Role) -> str:
    """Dotted name of the module that has all layers of that one's kind; the parent where none is.

    >>> unit_of("blocks.3.attn1.to_out.0", Role.SELF_ATTENTION_OUT)
    'blocks.3.attn1'
    """
    path = layer.split(".")
    parents = range(len(path) - 1, 0, -1)
    if role.startswith("feed_forward"):
        ends = [end for end in parents if FEED_FORWARD_NAME.fullmatch(path[end - 1])]
    elif role in _RESIDUAL:
        ends = [end for end in parents if path[end - 2] == "resnets"]
    else:
        # `to_out.0` is the first of a list that the attention has.
        ends = [end for end in parents if not path[end].isdecimal()]
    return ".".join(path[: ends[0] if ends else len(path) - 1])
