import torch
from torch import nn

from mezzotint.models import Call
from mezzotint.profiling import watch_runs


class Denoiser(nn.Module):
    """Two equal layers, one of which runs twice, one of another input, and one that is idle."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.same = nn.Conv2d(2, 2, 3, padding=1)
        self.strided = nn.Conv2d(2, 2, 3, padding=1, stride=2)
        self.idle = nn.Linear(4, 4)

    def forward(self, x):
        y = self.b(self.a(self.a(x)))
        image = torch.ones(1, 2, 4, 4)
        self.strided(self.conv(image))
        self.same(image.to(memory_format=torch.channels_last))
        return self.b(y[:, :1])


NAMES = ("a", "b", "conv", "same", "strided", "idle")


def runs():
    return watch_runs(Denoiser(), NAMES, Call((torch.ones(1, 3, 4),), {}))


def test_equal_work_has_equal_words_and_one_sample():
    found = runs()
    assert found.layers["a"] == (found.layers["b"][0],) * 2
    assert set(found.samples) == {words for each in found.layers.values() for words in each}
    assert found.samples[found.layers["a"][0]].layer == "a"


def test_every_run_counts():
    found = runs()
    assert len(found.layers["a"]) == 2
    assert len(set(found.layers["b"])) == 2


def test_a_layer_that_is_not_reached_has_no_runs():
    assert runs().layers["idle"] == ()


def test_geometry_and_memory_format_make_other_work():
    found = runs()
    assert len({found.layers[name] for name in ("conv", "same", "strided")}) == 3


def test_words_say_what_is_computed():
    assert runs().layers["strided"] == (
        "Conv2d, 2×2×3×3, stride 2×2, padding 1×1, bias, float32 input 1×2×4×4",
    )


def test_inputs_are_kept_as_they_were():
    found = runs()
    (words,) = found.layers["same"]
    assert found.samples[words].x.is_contiguous(memory_format=torch.channels_last)
    assert found.samples[found.layers["conv"][0]].x.is_contiguous()


def test_other_dtypes_are_other_work():
    layer = nn.Sequential(nn.Linear(4, 4))
    words = [
        watch_runs(layer.to(dtype), ["0"], Call((torch.ones(1, 4, dtype=dtype),), {})).layers["0"]
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert words[0] != words[1]
