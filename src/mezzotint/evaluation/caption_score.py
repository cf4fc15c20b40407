"""A score after the Inception score: captions stand in for an image classifier's classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mezzotint.errors import UsageError

SCALE = 100.0
"""Factor of the cosine similarities: the ceiling to which contrastive models are trained."""


def caption_score(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    *,
    captions: Sequence[str],
    scale: float = SCALE,
) -> float:
    """Mean KL(p(caption | image) ‖ p(caption)) as a number of things that images show: its exp.

    After Salimans et al., "Improved Techniques for Training GANs" (2016); the classes are the
    distinct captions, and their probabilities the softmax of `scale` · cosine similarity. From 1,
    where all images look alike to the model, to the number of distinct captions. Comparable only
    under the same contrastive model, captions and number of images; it does not say whether an
    image shows its own caption.

    Args:
        image_embeddings: [n, d].
        text_embeddings: [n, d], of each image's caption.
        captions: the caption of each image.
        scale: of the similarities.

    Raises:
        UsageError: shapes do not fit, or a value is not finite.
    """
    if image_embeddings.ndim != 2 or not len(image_embeddings):
        raise UsageError(f"embeddings of images are {list(image_embeddings.shape)}; give [n, d]")
    if text_embeddings.shape != (len(captions), image_embeddings.shape[1]):
        raise UsageError(
            f"embeddings of captions are {list(text_embeddings.shape)} for {len(captions)} "
            f"captions and images of {image_embeddings.shape[1]} values; give a row for each"
        )
    rows = list({caption: row for row, caption in enumerate(captions)}.values())
    images = normalize(image_embeddings.detach().cpu().double(), dim=-1)
    texts = normalize(text_embeddings.detach().cpu().double(), dim=-1)[rows]
    if not (images.isfinite().all() and texts.isfinite().all()):
        raise UsageError("embeddings hold NaN or infinite values; look for damaged images")
    log_p = torch.log_softmax(scale * images @ texts.T, dim=1)
    log_mean = torch.logsumexp(log_p, dim=0) - math.log(len(log_p))
    divergence = (log_p.exp() * (log_p - log_mean)).sum(1).mean()
    return math.exp(float(divergence))
