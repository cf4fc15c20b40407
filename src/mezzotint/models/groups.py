"""Layers that shape what a picture shows, and layers that shape how well it is drawn.

MixDQ (section 4) measures the two with different metrics. On SDXL's UNet its rule is by name:
content is what contains `ff` or `attn2`. By role the same rule reads: whatever brings the text in
(cross-attention, the text's side of joint attention) and the feed-forwards after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from mezzotint._patterns import matches
from mezzotint.errors import UsageError
from mezzotint.models.inventory import Layer
from mezzotint.models.roles import Role


class LayerGroup(StrEnum):
    """Side of an image that a layer mainly shapes."""

    CONTENT = "content"
    QUALITY = "quality"


CONTENT_ROLES = frozenset(
    role for role in Role if role.startswith(("cross_attention", "joint_attention", "feed_forward"))
)


def layer_groups(layers: Sequence[Layer], content: Sequence[str] = ()) -> Mapping[str, LayerGroup]:
    """The group of every layer, in their order.

    Args:
        layers: as `inventory` lists them.
        content: patterns (names, globs, `re:` expressions) of the content layers; without any, the
            roles decide.

    Raises:
        UsageError: a pattern is malformed or names no layer.
    """
    for pattern in content:
        if not any(matches(layer.name, pattern) for layer in layers):
            raise UsageError(f"content: {pattern!r} names no layer of this model")

    def shapes_content(layer: Layer) -> bool:
        if content:
            return any(matches(layer.name, pattern) for pattern in content)
        return layer.role in CONTENT_ROLES

    return {
        layer.name: LayerGroup.CONTENT if shapes_content(layer) else LayerGroup.QUALITY
        for layer in layers
    }


TEXT_READERS = frozenset({Role.CROSS_ATTENTION_K, Role.CROSS_ATTENTION_V, Role.TEXT_PROJECTION})


def text_readers(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Linears that may read the text embedding token by token.

    These are cross-attention's keys and values and, where a transformer first brings the text to
    its own width, those projections. Some of the latter read one pooled vector instead: only a
    call shows it.
    """
    return tuple(
        layer.name for layer in layers if layer.role in TEXT_READERS and layer.kind == "linear"
    )
