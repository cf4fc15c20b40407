"""Match of images and captions, by the embeddings of a contrastive model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torch import Tensor
from torch.nn.functional import cosine_similarity, interpolate, linear, normalize
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from mezzotint._progress import track
from mezzotint.errors import UsageError
from mezzotint.evaluation._images import ImageArray, check_images
from mezzotint.evaluation.bootstrap import Interval, bootstrap_interval

_BATCH = 256


@dataclass(frozen=True, eq=False)
class Contrastive:
    """A CLIP in two halves: pictures and captions go to vectors that agree in direction.

    Attributes:
        image_encoder: takes square pixels from -1 to 1.
        text_encoder: the one that the pipelines of this domain share.
        text_projection: [d, width], from its pooled output to the common space.
        tokenizer: of the text encoder.
    """

    image_encoder: CLIPVisionModelWithProjection
    text_encoder: CLIPTextModel
    text_projection: Tensor
    tokenizer: CLIPTokenizer

    @torch.inference_mode()
    def embed_images(self, images: ImageArray) -> Tensor:
        """Embeddings of unit length, float32 [n, d] on the CPU.

        Args:
            images: uint8 [n, H, W, 3]; resized where the encoder takes another size (bilinear,
                antialiased).

        Raises:
            UsageError: `images` is no batch of RGB images.
        """
        check_images(images, "images")
        side, device = self.image_encoder.config.image_size, self.text_projection.device
        embeddings = []
        for part in track(torch.split(torch.from_numpy(images), _BATCH), "Embedding images"):
            pixels = part.to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
            if pixels.shape[2:] != (side, side):
                pixels = interpolate(pixels, (side, side), mode="bilinear", antialias=True)
            embeddings.append(self.image_encoder(pixel_values=pixels).image_embeds.cpu())
        return normalize(torch.cat(embeddings), dim=-1)

    @torch.inference_mode()
    def embed_texts(self, captions: Sequence[str]) -> Tensor:
        """Embeddings of unit length, float32 [n, d] on the CPU; equal captions get equal rows.

        What is longer than the text encoder takes is cut off.

        Raises:
            UsageError: no captions.
        """
        if not captions:
            raise UsageError("captions: none given; at least one is needed")
        row = {caption: index for index, caption in enumerate(dict.fromkeys(captions))}
        ids = self.tokenizer(list(row), padding="max_length", truncation=True, return_tensors="pt")
        embeddings = []
        for part in track(torch.split(ids["input_ids"], _BATCH), "Embedding captions"):
            pooled = self.text_encoder(part.to(self.text_projection.device)).pooler_output
            embeddings.append(linear(pooled, self.text_projection).cpu())
        return normalize(torch.cat(embeddings), dim=-1)[[row[caption] for caption in captions]]


@dataclass(frozen=True)
class RPrecision:
    """R-precision with its 95% confidence interval (Wilson).

    Attributes:
        value: share of images whose own caption ranks first among the candidates.
        low: lower bound.
        high: upper bound.
        candidates: captions each image was held against, its own included.
        n: number of images.
    """

    value: float
    low: float
    high: float
    candidates: int
    n: int

    @classmethod
    def of(cls, first: npt.NDArray[np.bool_], candidates: int) -> RPrecision:
        """Made from what `first_ranks` returns; `candidates` captions were ranked."""
        interval = stats.binomtest(int(first.sum()), len(first)).proportion_ci(
            0.95, method="wilson"
        )
        return cls(
            value=float(first.mean()),
            low=float(interval.low),
            high=float(interval.high),
            candidates=candidates,
            n=len(first),
        )


def first_ranks(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    *,
    captions: Sequence[str],
    candidates: int = 100,
    seed: int = 0,
) -> npt.NDArray[np.bool_]:
    """Marks of the images nearest to their own caption, among randomly drawn others; bool [n].

    The arguments and errors are those of `r_precision`. Two pipelines' images of the same prompts
    are held against the same captions, so their entries are pairs.
    """
    _check_embeddings(image_embeddings, text_embeddings)
    if len(captions) != len(text_embeddings):
        raise UsageError(
            f"captions: {len(captions)} for {len(text_embeddings)} images; give one for each"
        )
    rows = {caption: row for row, caption in enumerate(captions)}
    number = {caption: index for index, caption in enumerate(rows)}
    candidates = ranked(captions, candidates)
    images = normalize(image_embeddings.detach().cpu().float(), dim=-1)
    texts = normalize(text_embeddings.detach().cpu().float(), dim=-1)[list(rows.values())]
    similarity = (images @ texts.T).numpy()
    rng, first = np.random.default_rng(seed), np.zeros(len(images), dtype=np.bool_)
    for index, (scores, caption) in enumerate(zip(similarity, captions, strict=True)):
        own = number[caption]
        others = rng.choice(len(rows) - 1, candidates - 1, replace=False)
        others += others >= own
        first[index] = scores[own] > scores[others].max()
    return first


def ranked(captions: Sequence[str], wanted: int = 100) -> int:
    """Number of captions that can be ranked: `wanted`, or all where fewer are distinct.

    Raises:
        UsageError: fewer than 2.
    """
    found = min(wanted, len(set(captions)))
    if found < 2:
        raise UsageError(
            f"candidates: {found} is too few to rank; use 2 or more, and as many prompts"
        )
    return found


def r_precision(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    *,
    captions: Sequence[str],
    candidates: int = 100,
    seed: int = 0,
) -> RPrecision:
    """Share of images that are nearest to their own caption, among randomly drawn others.

    After Xu et al., "AttnGAN" (2018): the own caption and 99 others are ranked by cosine
    similarity. Here the others differ from it and from each other. A tie for the first rank does
    not count. Chance level is 1 / candidates.

    Args:
        image_embeddings: [n, d].
        text_embeddings: [n, d], of each image's caption.
        captions: the caption of each image; equal ones are never held against each other.
        candidates: captions to rank; all of them where fewer are distinct.
        seed: of the drawing; images in the same order meet the same captions.

    Raises:
        UsageError: shapes do not fit, or there are fewer than 2 candidates or distinct captions.
    """
    first = first_ranks(
        image_embeddings, text_embeddings, captions=captions, candidates=candidates, seed=seed
    )
    return RPrecision.of(first, ranked(captions, candidates))


def mean_alignment(image_embeddings: Tensor, text_embeddings: Tensor, *, seed: int = 0) -> Interval:
    """Mean cosine similarity of images [n, d] and their captions [n, d], bootstrapped.

    Comparable only under the same contrastive model.

    Raises:
        UsageError: shapes do not fit, or a value is not finite.
    """
    _check_embeddings(image_embeddings, text_embeddings)
    cosines = cosine_similarity(image_embeddings.detach().float(), text_embeddings.detach().float())
    return bootstrap_interval(cosines.cpu().numpy(), seed=seed)


def _check_embeddings(images: Tensor, texts: Tensor) -> None:
    if images.ndim != 2 or images.shape != texts.shape or not len(images):
        raise UsageError(
            f"embeddings of images are {list(images.shape)} and of captions {list(texts.shape)}; "
            "give one row [d] of each per image"
        )
    if not (images.isfinite().all() and texts.isfinite().all()):
        raise UsageError("embeddings hold NaN or infinite values; look for damaged images")
