"""Loading the contrastive model behind the alignment scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from mezzotint.errors import ModelError
from mezzotint.evaluation.alignment import Contrastive
from mezzotint.models import list_embedded, quiet_libraries, resolve

IMAGE_ENCODER = "image_encoder"
PROJECTION_FILE = "text_projection.safetensors"


def load_contrastive(
    folder: str | Path, pipeline: str | Path, *, device: torch.device | str = "cpu"
) -> Contrastive:
    """Load a contrastive model whose text half is that of a pipeline.

    Args:
        folder: holds `image_encoder/` (a CLIPVisionModelWithProjection) and
            `text_projection.safetensors` (one tensor, `weight` [d, width]).
        pipeline: embedded name or folder of the pipeline with `text_encoder/` and `tokenizer/`.
        device: where to compute.

    Raises:
        ModelError: a part is missing, damaged, or does not fit the others.
    """
    folder, text_folder = Path(folder), resolve(pipeline).folder
    if text_folder is None:
        raise ModelError(f"{pipeline}: is not on this machine; name a local folder")
    vision = _load(CLIPVisionModelWithProjection, folder / IMAGE_ENCODER)
    text = _load(CLIPTextModel, text_folder / "text_encoder")
    projection = _load_projection(folder / PROJECTION_FILE)
    expected = (vision.config.projection_dim, text.config.hidden_size)
    if projection.shape != expected:
        raise ModelError(
            f"{folder / PROJECTION_FILE}: weight is {list(projection.shape)}, but the encoders "
            f"need {list(expected)}; take all parts from the same training"
        )
    return Contrastive(
        image_encoder=vision.to(device),
        text_encoder=text.to(device),
        text_projection=projection.to(device),
        tokenizer=_load_tokenizer(text_folder / "tokenizer"),
    )


def embedded_contrastive(device: torch.device | str = "cpu") -> Contrastive:
    """The model that ships with this package: 64×64 emojis and their captions."""
    pipeline = Path(resolve("emoji-turbo").location)
    return load_contrastive(pipeline.parent / "emoji-clip", pipeline, device=device)


def contrastive_for(pipe: DiffusionPipeline) -> Contrastive | None:
    """The embedded contrastive model for an embedded pipeline; None for any other.

    Its figures mean something in the domain it was trained on only.
    """
    embedded = {resolve(name).location for name in list_embedded()}
    return embedded_contrastive() if pipe.name_or_path in embedded else None


def _load(model_class: Any, folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: holds no model; copy the whole folder again")
    try:
        with quiet_libraries():
            model, report = model_class.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as cause:
        raise ModelError(f"{folder}: cannot be loaded ({cause}); copy it again") from cause
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            wrong = ", ".join(sorted(map(str, report[kind]))[:3])
            raise ModelError(
                f"{folder}: {kind.replace('_', ' ')}: {wrong}; the weights do not fit config.json"
            )
    return model.float().eval()


def _load_projection(path: Path) -> Tensor:
    try:
        return load_file(path)["weight"].float()
    except (OSError, SafetensorError, KeyError) as cause:
        raise ModelError(
            f"{path}: holds no tensor 'weight' ({cause}); copy the whole folder again"
        ) from cause


def _load_tokenizer(folder: Path) -> CLIPTokenizer:
    if not folder.is_dir():
        raise ModelError(f"{folder}: is missing; copy the whole pipeline again")
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as cause:
        raise ModelError(f"{folder}: cannot be loaded ({cause}); copy it again") from cause
