"""Content and quality layers, text readers and joined inputs on the published architectures."""

from collections import Counter

import pytest

from mezzotint.errors import UsageError
from mezzotint.models import LayerGroup, Role, joined_inputs, layer_groups, text_readers
from tests.models import architectures as published
from tests.models.architectures import Architecture, by_name, graph_of, layers_of

CONTENT_AND_QUALITY = {
    published.SD15: (96, 186),
    published.SDXL: (420, 374),
    published.PIXART_SIGMA: (168, 119),
    published.PIXART_ALPHA: (168, 123),
    published.SD3: (189, 152),
    published.FLUX: (228, 276),
    published.SANA: (140, 87),
    published.HUNYUAN_DIT: (240, 232),
}

TEXT_READERS = {
    published.SD15: 32,
    published.SDXL: 140,
    published.PIXART_SIGMA: 58,
    published.SD3: 3,
    published.FLUX: 3,
    published.SANA: 42,
    published.HUNYUAN_DIT: 86,
}


@pytest.mark.parametrize(("architecture", "counts"), **by_name(CONTENT_AND_QUALITY))
def test_layers_per_group(architecture: Architecture, counts: tuple[int, int]):
    found = Counter(layer_groups(layers_of(architecture)).values())
    assert (found[LayerGroup.CONTENT], found[LayerGroup.QUALITY]) == counts


def test_on_sdxl_the_roles_say_what_the_published_names_say():
    for name, group in layer_groups(layers_of(published.SDXL)).items():
        assert (group is LayerGroup.CONTENT) == ("ff" in name or "attn2" in name)


def test_patterns_override_the_roles():
    groups = layer_groups(layers_of(published.SDXL), ["mid_block", "re:.*conv_in"])
    content = {name for name, group in groups.items() if group is LayerGroup.CONTENT}
    assert content == {n for n in groups if n.startswith("mid_block.") or n == "conv_in"}


def test_a_pattern_without_a_layer_is_refused():
    with pytest.raises(UsageError, match="content: 'nowhere' names no layer"):
        layer_groups(layers_of(published.SDXL), ["nowhere"])


@pytest.mark.parametrize(("architecture", "count"), **by_name(TEXT_READERS))
def test_layers_that_may_read_the_text_token_by_token(architecture: Architecture, count: int):
    assert len(text_readers(layers_of(architecture))) == count


@pytest.mark.parametrize(
    "name",
    ["caption_projection.linear_1", "caption_projection.linear_2"],
)
def test_the_projection_of_the_text_reads_it_too(name: str):
    assert name in text_readers(layers_of(published.PIXART_SIGMA))


class TestJoinedInputs:
    def joined(self, architecture: Architecture, role: Role) -> list[int]:
        roles = {layer.name: layer.role for layer in layers_of(architecture)}
        found = joined_inputs(graph_of(architecture))
        return [first for name, first in found.items() if roles[name] is role]

    def test_sdxl_splits_nine_shortcuts_where_the_paper_does(self):
        sizes = self.joined(published.SDXL, Role.SHORTCUT)
        assert sizes == [1280, 1280, 1280, 1280, 640, 640, 640, 320, 320]

    def test_sd15_splits_twelve_shortcuts(self):
        sizes = self.joined(published.SD15, Role.SHORTCUT)
        assert sizes == [1280] * 7 + [640] * 3 + [320] * 2

    def test_shortcuts_on_the_way_down_read_one_tensor(self):
        assert not [
            n for n in joined_inputs(graph_of(published.SDXL)) if n.startswith("down_blocks")
        ]

    def test_parallel_blocks_of_flux_join_attention_and_feed_forward(self):
        assert self.joined(published.FLUX, Role.FEED_FORWARD_OUT) == [3072] * 38

    @pytest.mark.parametrize("architecture", [published.PIXART_SIGMA, published.SANA], ids=str)
    def test_transformers_without_skips_have_no_shortcut(self, architecture: Architecture):
        assert self.joined(architecture, Role.SHORTCUT) == []
