"""Norms whose output is read by layers alone, and by which."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.normalization import FP32LayerNorm, RMSNorm
from torch import Tensor, nn

from mezzotint.models import Call, Graph, trace_graph
from tests.models import tiny

TOKENS = torch.zeros(2, 6, 8)
IMAGE = torch.zeros(2, 8, 3, 4)


class Normed(nn.Module):
    """A norm, three linear layers and two convolutions, run as a test says."""

    def __init__(self, norm: nn.Module, forward: Callable[[Normed, Tensor], object]) -> None:
        super().__init__()
        self.norm = norm
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.narrow = nn.Linear(2, 2)
        self.conv, self.other = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.run = forward

    def forward(self, x: Tensor) -> object:
        return self.run(self, x)


def traced(
    forward: Callable[[Normed, Tensor], object],
    norm: nn.Module | None = None,
    x: Tensor = TOKENS,
) -> Graph:
    return trace_graph(Normed(norm or nn.LayerNorm(8), forward), Call((x,), {}))


class TestReaders:
    @pytest.mark.parametrize(
        ("norm", "x"),
        [
            (nn.LayerNorm(8), TOKENS),
            (nn.LayerNorm(8, bias=False), TOKENS),
            (FP32LayerNorm(8), TOKENS),
            (nn.RMSNorm(8), TOKENS),
            (RMSNorm(8, eps=1e-6), TOKENS),
        ],
        ids=["layer norm", "without bias", "in float32", "rms norm", "diffusers' rms norm"],
    )
    def test_norms_of_the_last_dimension(self, norm: nn.Module, x: Tensor):
        graph = traced(lambda self, x: self.a(y := self.norm(x)) + self.b(y), norm, x)
        assert graph.norms == {"norm": ("a", "b")}
        assert graph.norm_siblings == graph.norms

    def test_group_norms_of_images(self):
        graph = traced(lambda self, x: self.conv(self.norm(x)), nn.GroupNorm(2, 8), IMAGE)
        assert graph.norms == {"norm": ("conv",)}

    @pytest.mark.parametrize(
        "view",
        [
            lambda y: y.permute(0, 2, 3, 1).reshape(2, 12, 8),
            lambda y: y.flatten(2).transpose(1, 2).contiguous(),
            lambda y: y.movedim(1, -1).to(torch.float64).float(),
        ],
        ids=["permuted, reshaped", "flattened, transposed", "moved, cast"],
    )
    def test_views_of_an_image_keep_its_channels(self, view: Callable[[Tensor], Tensor]):
        graph = traced(lambda self, x: self.a(view(self.norm(x))), nn.GroupNorm(2, 8), IMAGE)
        assert graph.norms == {"norm": ("a",)}

    def test_a_norm_that_is_run_twice_has_the_readers_of_both(self):
        def forward(self: Normed, x: Tensor) -> Tensor:
            return self.b(self.norm(self.a(self.norm(x))))

        graph = traced(forward)
        assert graph.norms == {"norm": ("a", "b")}
        assert graph.norm_siblings == {}


class TestOthers:
    @pytest.mark.parametrize(
        "forward",
        [
            lambda self, x: self.a(self.norm(x)) + self.norm(x),
            lambda self, x: self.a(y := self.norm(x)) + y.mean(),
            lambda self, x: self.a(F.silu(self.norm(x))),
            lambda self, x: self.a(self.norm(x) * 2.0),
            lambda self, x: self.a(self.norm(x) * (1 + x[:, :1]) + x[:, 1:2]),
            lambda self, x: self.a(y := self.norm(x)) + y.add_(1),
            lambda self, x: self.a(y := self.norm(x)) + y[:, :1],
            lambda self, x: self.a(torch.cat([self.norm(x)[..., :4], x[..., 4:]], -1)),
            lambda self, x: self.a(y := self.norm(x)) + F.linear(y, self.b.weight),
            lambda self, x: self.a(y := self.norm(x)) + float(y.sum()),
            lambda self, x: (self.norm(x), self.a(self.norm(x))),
            lambda self, x: self.a(self.norm(x)) + self.norm.weight,
            lambda self, x: self.a(self.norm(x)) + self.a(x),
            lambda self, x: self.a(self.norm(x)) + F.linear(x, self.a.weight),
            lambda self, x: self.a(self.norm(x).transpose(1, 2).reshape(2, 6, 8)),
            lambda self, x: self.narrow(self.norm(x).unflatten(2, (4, 2))),
        ],
        ids=[
            "the output again", "a function", "an activation", "a product", "a modulation",
            "written to", "a slice", "concatenated", "a weight in a function", "a number",
            "the model's output", "the weight itself", "a reader of other tensors",
            "a reader's weight elsewhere", "channels in disorder", "parts of the channels",
        ],
    )  # fmt: skip
    def test_a_norm_that_others_read_is_none(self, forward: Callable[[Normed, Tensor], object]):
        assert traced(forward).norms == {}

    @pytest.mark.parametrize(
        "norm",
        [
            nn.LayerNorm(8, elementwise_affine=False),
            nn.LayerNorm((6, 8)),
            nn.InstanceNorm1d(6, affine=True),
            nn.Identity(),
        ],
        ids=["no weight", "a weight for each token too", "another kind", "no norm"],
    )
    def test_other_modules_are_none(self, norm: nn.Module):
        assert traced(lambda self, x: self.a(self.norm(x)), norm).norms == {}

    def test_a_weight_that_two_norms_share_counts_for_neither(self):
        model = Normed(nn.LayerNorm(8), lambda self, x: self.a(self.norm(x)))
        model.second = nn.LayerNorm(8)
        model.second.weight = model.norm.weight
        assert trace_graph(model, Call((TOKENS,), {})).norms == {}

    def test_readers_of_different_views_do_not_share_smoothing(self):
        graph = traced(lambda self, x: self.a(y := self.norm(x)) + self.b(y.contiguous().clone()))
        assert graph.norms == {"norm": ("a", "b")}
        assert graph.norm_siblings == {}


class TestDenoisers:
    def test_in_a_u_net_the_norms_before_attention_and_feed_forward_count(self):
        graph = trace_graph(tiny.smallest_unet())
        within = "up_blocks.0.attentions.0."
        block = f"{within}transformer_blocks.0."
        assert {n: r for n, r in graph.norms.items() if n.startswith(within)} == {
            f"{within}norm": (f"{within}proj_in",),
            f"{block}norm1": tuple(f"{block}attn1.to_{each}" for each in "qkv"),
            f"{block}norm2": (f"{block}attn2.to_q",),
            f"{block}norm3": (f"{block}ff.net.0.proj",),
        }
        assert not any("resnets" in norm or "conv_norm_out" in norm for norm in graph.norms)

    def test_modulated_norms_of_a_transformer_do_not(self):
        assert trace_graph(tiny.tiny_pixart()).norms == {}

    def test_they_are_kept_in_files(self, tmp_path):
        graph = trace_graph(tiny.smallest_unet())
        graph.save(tmp_path / "graph.json")
        assert Graph.load(tmp_path / "graph.json") == graph
