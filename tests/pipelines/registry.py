"""Every tiny pipeline."""

from __future__ import annotations

from tests.pipelines.text_to_image import TEXT_TO_IMAGE
from tests.pipelines.tiny_pipeline import TinyPipeline
from tests.pipelines.u_nets import U_NETS
from tests.pipelines.videos import VIDEOS
from tests.pipelines.without_text import WITHOUT_TEXT

PIPELINES: tuple[TinyPipeline, ...] = (*U_NETS, *TEXT_TO_IMAGE, *VIDEOS, *WITHOUT_TEXT)
