"""Role of a layer, told from its name and the modules around it.

The rules read the dotted name and the modules around the layer. They know the vocabulary of
diffusers (`attn2`, `to_out`, `ff`, `time_emb_proj`, …), not any single architecture.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor, nn

from mezzotint.models.joint import split_name


class Role(StrEnum):
    """The function of a Linear or Conv layer within a denoiser."""

    INPUT = "input"
    """Latents to features: `conv_in`, patch embedding, `x_embedder`."""
    OUTPUT = "output"
    """Features to the predicted noise: `conv_out`, the last `proj_out`."""
    TIME_EMBEDDING = "time_embedding"
    """Embedding of the timestep, guidance scale or picture size, once per call."""
    TIME_PROJECTION = "time_projection"
    """Time embedding to the channels of one residual block."""
    TEXT_PROJECTION = "text_projection"
    """Text embeddings to the denoiser's width, once per call."""
    MODULATION = "modulation"
    """Scales, shifts and gates of adaptive normalization."""
    SELF_ATTENTION_Q = "self_attention_q"
    SELF_ATTENTION_K = "self_attention_k"
    SELF_ATTENTION_V = "self_attention_v"
    SELF_ATTENTION_QKV = "self_attention_qkv"
    """Fused projections."""
    SELF_ATTENTION_OUT = "self_attention_out"
    """Attention among the image's tokens; in joint attention, the image's side of it."""
    CROSS_ATTENTION_Q = "cross_attention_q"
    CROSS_ATTENTION_K = "cross_attention_k"
    CROSS_ATTENTION_V = "cross_attention_v"
    CROSS_ATTENTION_QKV = "cross_attention_qkv"
    CROSS_ATTENTION_OUT = "cross_attention_out"
    """Attention of the image to the text."""
    JOINT_ATTENTION_Q = "joint_attention_q"
    JOINT_ATTENTION_K = "joint_attention_k"
    JOINT_ATTENTION_V = "joint_attention_v"
    JOINT_ATTENTION_QKV = "joint_attention_qkv"
    JOINT_ATTENTION_OUT = "joint_attention_out"
    """The text's side of joint attention (`add_q_proj`, …, `to_add_out`)."""
    ATTENTION_IN = "attention_in"
    ATTENTION_OUT = "attention_out"
    """Into and out of a stack of transformer blocks inside a U-Net."""
    FEED_FORWARD_IN = "feed_forward_in"
    FEED_FORWARD_MIDDLE = "feed_forward_middle"
    """Depthwise convolution between the two others."""
    FEED_FORWARD_OUT = "feed_forward_out"
    RESNET_CONV = "resnet_conv"
    SHORTCUT = "shortcut"
    """Layers in which a skip connection changes width: `conv_shortcut`, `skip_linear`."""
    DOWNSAMPLE = "downsample"
    UPSAMPLE = "upsample"
    OTHER = "other"


def role_of(name: str, denoiser: nn.Module) -> Role:
    """The role of the layer at dotted `name`; `Role.OTHER` if no rule knows it.

    Raises:
        AttributeError: `denoiser` has no module of that name.
    """
    place = _Place.of(*split_name(name, denoiser))
    roles = (rule(place) for rule in _RULES)
    return next((role for role in roles if role is not None), Role.OTHER)


@dataclass(frozen=True)
class _Place:
    """A layer and the way to it: `path[i]` is the name of `modules[i]` in its parent."""

    path: tuple[str, ...]
    modules: tuple[nn.Module, ...]
    parent: nn.Module

    @classmethod
    def of(cls, name: str, denoiser: nn.Module) -> _Place:
        path = tuple(name.split("."))
        modules = [denoiser]
        for part in path:
            modules.append(modules[-1].get_submodule(part))
        return cls(path, tuple(modules[1:]), modules[-2])

    @property
    def leaf(self) -> str:
        return self.path[-1]

    @property
    def layer(self) -> nn.Module:
        return self.modules[-1]

    def innermost(self, test: Callable[[str, nn.Module], bool]) -> int | None:
        """Index of the closest enclosing module that passes `test`, if any."""
        inside = range(len(self.path) - 2, -1, -1)
        return next((i for i in inside if test(self.path[i], self.modules[i])), None)

    def within(self, pattern: re.Pattern[str]) -> bool:
        """True if the name of an enclosing module matches."""
        return any(pattern.fullmatch(part) for part in self.path[:-1])


_Rule = Callable[[_Place], Role | None]

_ATTENTION = re.compile(r"\w*(attn|attention)\d*")
FEED_FORWARD_NAME = re.compile(r"(img_|txt_)?(ff|ffn|mlp|feed_forward)(_context)?")
_TIME = re.compile(
    r"time(step)?_(embed\w*|in|step_proj)|(t|guidance|extra|resolution|aspect_ratio)_embedder"
    r"|add_embedding|condition_embedder"
)
_TEXT = re.compile(
    r"(caption|text|context|cap)_(projection|proj|embed\w*)|pooler|encoder_hid_proj|txt_in"
)
_MODULATION = re.compile(r"(\w*_)?norm\w*|adaln\w*|\w*_?mod(ulation)?\w*", re.IGNORECASE)
_INPUT = re.compile(r"(conv|proj|img)_in|pos_embed|\w*patch_embed\w*|\w*x_embedder")
_OUTPUT = re.compile(r"(conv|proj)_out\w*|\w*final_\w+|out_layer")
_PARTS = {
    "q": r"(to_|add_)?q(uery)?(_proj)?",
    "k": r"(to_|add_)?k(ey)?(_proj)?",
    "v": r"(to_|add_)?v(alue)?(_proj)?",
    "qkv": r"(to_|to_added_|add_)?qkv(_mlp)?(_proj)?",
    "out": r"to_out|to_add_out|out_proj|o_proj|proj_out|proj_attn|out_layer",
}


def _attention(place: _Place) -> Role | None:
    index = place.innermost(
        lambda name, module: bool(_ATTENTION.fullmatch(name)) or hasattr(module, "to_q")
    )
    if index is None:
        return None
    own_name = place.path[index + 1]
    part = next((part for part, names in _PARTS.items() if re.fullmatch(names, own_name)), None)
    if part is None:
        return None
    attention = place.modules[index]
    if "add" in own_name:
        kind = "joint"
    elif getattr(attention, "is_cross_attention", "cross" in place.path[index]):
        kind = "cross"
    else:
        kind = "self"
    return Role(f"{kind}_attention_{part}")


def _feed_forward(place: _Place) -> Role | None:
    named = place.leaf in {"gate_proj", "up_proj", "down_proj"}
    if not named and not place.within(FEED_FORWARD_NAME):
        return None
    if getattr(place.layer, "groups", 1) > 1:
        return Role.FEED_FORWARD_MIDDLE
    # A feed-forward widens, then narrows, by whatever names.
    weight = getattr(place.layer, "weight", None)
    narrows = isinstance(weight, Tensor) and weight.shape[0] < weight.shape[1]
    return Role.FEED_FORWARD_OUT if narrows else Role.FEED_FORWARD_IN


def _parallel_feed_forward(place: _Place) -> Role | None:
    """Blocks that run attention and feed-forward side by side share their output projection."""
    if not hasattr(place.parent, "proj_mlp"):
        return None
    return {"proj_mlp": Role.FEED_FORWARD_IN, "proj_out": Role.FEED_FORWARD_OUT}.get(place.leaf)


def _residual_block(place: _Place) -> Role | None:
    if place.leaf in {"conv_shortcut", "nin_shortcut", "skip_linear"}:
        return Role.SHORTCUT
    if place.leaf == "time_emb_proj":
        return Role.TIME_PROJECTION
    if "resnets" in place.path and not {"conv1", "conv2"}.isdisjoint(place.path):
        return Role.RESNET_CONV
    if "downsamplers" in place.path:
        return Role.DOWNSAMPLE
    if "upsamplers" in place.path:
        return Role.UPSAMPLE
    return None


def _transformer_border(place: _Place) -> Role | None:
    if "attentions" not in place.path:
        return None
    return {"proj_in": Role.ATTENTION_IN, "proj_out": Role.ATTENTION_OUT}.get(place.leaf)


def _adaptive_norm(place: _Place) -> Role | None:
    return Role.MODULATION if "AdaLayerNorm" in type(place.parent).__name__ else None


def _embedding(place: _Place) -> Role | None:
    for pattern, role in ((_TEXT, Role.TEXT_PROJECTION), (_TIME, Role.TIME_EMBEDDING)):
        if pattern.fullmatch(place.leaf) or place.within(pattern):
            return role
    return None


def _modulation(place: _Place) -> Role | None:
    named = _MODULATION.fullmatch(place.leaf) or place.within(_MODULATION)
    return Role.MODULATION if named else None


def _border(place: _Place) -> Role | None:
    for pattern, role in ((_INPUT, Role.INPUT), (_OUTPUT, Role.OUTPUT)):
        if pattern.fullmatch(place.path[0]):
            return role
    return None


_RULES: tuple[_Rule, ...] = (
    _attention,
    _feed_forward,
    _parallel_feed_forward,
    _residual_block,
    _transformer_border,
    # An adaptive norm may hold the time embedding (`adaln_single.emb.timestep_embedder`) or be
    # named for it (Sana's `time_embed.linear`): its class decides before any name.
    _adaptive_norm,
    _embedding,
    _modulation,
    _border,
)
"""Tried in this order; the first that knows the layer wins."""
