"""Example arguments for any denoiser, from its signature and configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mezzotint.errors import ModelError
from mezzotint.models.calls import Call

_ABSENT = object()
"""Result of a maker for an argument that this configuration does without."""

_CLIP_TOKENS = 77
"""Text length of models conditioned on CLIP, which the U-Nets are."""

_T5_TOKENS = 256
"""Text length of transformers where the configuration gives none: T5 pipelines use 120–512."""

_PACKED_SIDE = 64
"""Side of the token grid of packed latents (1024 px, VAE stride 8, 2×2 patches)."""

_LATENT_SIDE = 64
"""Side of the latents where the configuration has no `sample_size`."""

_TEXT_WIDTHS = (
    "joint_attention_dim",
    "caption_channels",
    "text_embed_dim",
    "text_dim",
    "cap_feat_dim",
    "encoder_hid_dim",
    "cross_attention_dim",
)
"""Names under which configurations give the width of the text embeddings, most specific first."""


def example_call(denoiser: nn.Module, batch: int = 1) -> Call:
    """Arguments on the meta device with the shapes of a typical call: right size, no values.

    Latents have the configuration's `sample_size` (64 where it gives none; packed latents, a 64×64
    grid of tokens), text has 77 tokens for U-Nets and `text_len` or 256 for transformers.
    Floating-point tensors have the denoiser's own dtype.

    Raises:
        ModelError: an argument that is needed cannot be made; the message names it.
    """
    shapes = _Shapes.of(denoiser, batch)
    kwargs: dict[str, Any] = {}
    for name, parameter in shapes.parameters.items():
        required = parameter.default is parameter.empty
        if name in _MAKERS:
            value = _make(name, _MAKERS[name], shapes, denoiser)
        elif name in _MASKS and required:
            value = shapes.tensor(shapes.text_tokens)
        elif required and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            raise _cannot(name, denoiser, "the argument is unknown")
        else:
            value = _ABSENT
        if value is not _ABSENT:
            kwargs[name] = value
    return Call(args=(), kwargs=kwargs)


@dataclass(frozen=True)
class _Shapes:
    """Shapes of a denoiser, for the argument makers below."""

    config: Mapping[str, Any]
    parameters: Mapping[str, inspect.Parameter]
    batch: int
    dtype: torch.dtype

    @classmethod
    def of(cls, denoiser: nn.Module, batch: int) -> _Shapes:
        floats = (p.dtype for p in denoiser.parameters() if p.is_floating_point())
        return cls(
            config=dict(getattr(denoiser, "config", {})),
            parameters=inspect.signature(denoiser.forward).parameters,
            batch=batch,
            dtype=next(floats, torch.float32),
        )

    def tensor(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """A meta tensor [batch, *shape]."""
        return torch.empty(self.batch, *shape, device="meta", dtype=dtype or self.dtype)

    def ids(self, count: int) -> Tensor:
        """Position ids [count, axes] of rotary embeddings."""
        axes = len(self.config.get("axes_dims_rope") or (16, 56, 56))
        return torch.empty(count, axes, device="meta", dtype=self.dtype)

    def get(self, name: str) -> Any:
        """A configuration value that must be there and not None."""
        value = self.config.get(name)
        if value is None:
            raise KeyError(name)
        return value

    @property
    def packed(self) -> bool:
        """True if latents come as a sequence of patches, with their positions beside them."""
        return not {"img_ids", "img_shapes"}.isdisjoint(self.parameters)

    @property
    def latent_size(self) -> tuple[int, int]:
        size = self.config.get("sample_size") or _LATENT_SIDE
        height, width = (size, size) if isinstance(size, int) else size
        return height, width

    @property
    def text_tokens(self) -> int:
        if "sample" in self.parameters:
            return _CLIP_TOKENS
        return self.config.get("text_len") or _T5_TOKENS

    @property
    def text_width(self) -> int:
        width = next((self.config[n] for n in _TEXT_WIDTHS if self.config.get(n)), None)
        if width is None:
            raise KeyError(" or ".join(_TEXT_WIDTHS))
        return width if isinstance(width, int) else width[0]


def _make(name: str, maker: Callable[[_Shapes], Any], shapes: _Shapes, denoiser: nn.Module) -> Any:
    try:
        return maker(shapes)
    except KeyError as cause:
        raise _cannot(name, denoiser, f"its configuration has no {cause.args[0]}") from cause


def _cannot(name: str, denoiser: nn.Module, reason: str) -> ModelError:
    return ModelError(
        f"{type(denoiser).__name__}: cannot make up the argument {name!r} of forward ({reason}); "
        "pass a call recorded from the pipeline"
    )


def _latents(s: _Shapes) -> Tensor:
    channels = s.get("in_channels")
    if s.packed:
        return s.tensor(_PACKED_SIDE**2, channels)
    return s.tensor(channels, *s.latent_size)


def _text(s: _Shapes) -> Tensor:
    return s.tensor(s.text_tokens, s.text_width)


def _class_labels(s: _Shapes) -> Any:
    """Class ids, or the vectors that some U-Nets take instead."""
    kind = s.config.get("class_embed_type")
    if kind in {"projection", "simple_projection"}:
        return s.tensor(s.get("projection_class_embeddings_input_dim"))
    class_conditioned = kind or s.config.get("num_class_embeds")
    if class_conditioned or s.config.get("norm_type") == "ada_norm_zero":
        return s.tensor(dtype=torch.long)
    return _ABSENT


def _added_cond(s: _Shapes) -> Any:
    """Micro-conditioning: U-Nets say by `addition_embed_type` what they add, PixArt by a flag."""
    if "use_additional_conditions" in s.config:
        wanted = s.config["use_additional_conditions"]
        if wanted is None:  # PixArt's own rule
            wanted = s.config.get("sample_size") == 128
        sizes = {"resolution": s.tensor(2), "aspect_ratio": s.tensor(1)}
        return sizes if wanted else dict.fromkeys(sizes)
    kind = s.config.get("addition_embed_type")
    if kind is None or kind == "text":
        return _ABSENT
    if kind == "text_time":
        time_width = 6 * s.get("addition_time_embed_dim")
        pooled = s.get("projection_class_embeddings_input_dim") - time_width
        return {"text_embeds": s.tensor(pooled), "time_ids": s.tensor(6)}
    if kind == "image":
        return {"image_embeds": s.tensor(s.get("encoder_hid_dim"))}
    raise KeyError(f"known addition_embed_type, but {kind!r}")


def _rotary(s: _Shapes) -> tuple[Tensor, Tensor]:
    """Cosine and sine [tokens, head_dim] of the image's patches."""
    height, width = s.latent_size
    patch, channels = s.get("patch_size"), s.get("attention_head_dim")
    table = torch.empty((height // patch) * (width // patch), channels, device="meta")
    return table, table


_MAKERS: Mapping[str, Callable[[_Shapes], Any]] = {
    "sample": _latents,
    "hidden_states": _latents,
    "timestep": lambda s: s.tensor(),
    "timestep_cond": lambda s: (
        s.tensor(s.get("time_cond_proj_dim")) if s.config.get("time_cond_proj_dim") else _ABSENT
    ),
    "encoder_hidden_states": _text,
    "class_labels": _class_labels,
    "added_cond_kwargs": _added_cond,
    "pooled_projections": lambda s: (
        s.tensor(s.get("pooled_projection_dim")) if "pooled_projection_dim" in s.config else _ABSENT
    ),
    "guidance": lambda s: s.tensor() if s.config.get("guidance_embeds") else _ABSENT,
    "img_ids": lambda s: s.ids(_PACKED_SIDE**2),
    "txt_ids": lambda s: s.ids(s.text_tokens),
    "img_shapes": lambda s: [(1, _PACKED_SIDE, _PACKED_SIDE)] * s.batch,
    "text_embedding_mask": lambda s: s.tensor(s.text_tokens),
    "encoder_hidden_states_t5": lambda s: s.tensor(
        s.get("text_len_t5"), s.get("cross_attention_dim_t5")
    ),
    "text_embedding_mask_t5": lambda s: s.tensor(s.get("text_len_t5")),
    "image_meta_size": lambda s: s.tensor(6),
    "style": lambda s: s.tensor(dtype=torch.long),
    "image_rotary_emb": _rotary,
    "original_size": lambda s: s.tensor(2),
    "target_size": lambda s: s.tensor(2),
    "crop_coords": lambda s: s.tensor(2),
}
"""Makers of the arguments that a denoiser of diffusers may need, whatever their defaults."""

_MASKS = frozenset({"encoder_attention_mask", "encoder_hidden_states_mask"})
"""Text masks; optional almost everywhere, and then left out."""
