import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mezzotint.calibration import (
    StructureTensors,
    input_ranges,
    input_sizes,
    observe_structures,
)
from mezzotint.errors import FormatError
from mezzotint.formats import from_bits
from mezzotint.models import Call, Sampling, record_calls, trace_graph
from mezzotint.plan import Choice, Observer, Reader, Tensors
from mezzotint.runtime import ConstantTokens, InputRange, SplitInput
from tests.models import tiny
from tests.runtime.structures.scaled import Evened, InputScale


class _Denoiser(nn.Module):
    """Reads text twice: as it is, and after something that depends on all of it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.to_k = nn.Linear(4, 3)
        self.mixed = nn.Linear(4, 3)
        self.pooled = nn.Linear(4, 3)
        self.conv = nn.Conv1d(4, 3, 1)
        self.unused = nn.Linear(4, 3)

    def forward(self, text: Tensor) -> Tensor:
        mixed = self.mixed(text + text.mean(1, keepdim=True))
        return self.to_k(text) + mixed + self.pooled(text[:, 1]).unsqueeze(1)


def call(*seeds: int, tokens: int = 5, scale: float = 0.0) -> Call:
    """A batch with one prompt per seed; `scale` is what the first tokens differ by."""
    prompts = []
    for seed in seeds:
        text = torch.randn(tokens, 4, generator=torch.Generator().manual_seed(seed))
        text[0] = torch.tensor([3.0, 800.0, -20.0, 0.0]) * (1 + scale * seed)
        prompts.append(text)
    return Call((torch.stack(prompts),), {})


def constant_tokens(
    denoiser: nn.Module, names: Sequence[str], calls: Sequence[Call]
) -> StructureTensors:
    return observe_structures(denoiser, dict.fromkeys(names, (ConstantTokens(1),)), calls)


def constant_of(found: StructureTensors) -> Tensor:
    return from_bits(found.tensors["to_k"]["constant"], torch.float32)


def refusal(name: str, *calls: Call) -> str:
    found = constant_tokens(_Denoiser(), [name], calls)
    assert not found.tensors
    return found.refused[name].why


@pytest.mark.parametrize(
    "calls", [[call(1, 2)], [call(1), call(2)]], ids=["one batch", "two calls"]
)
def test_the_output_for_the_first_token_is_kept(calls: list[Call]):
    denoiser = _Denoiser()
    found = constant_tokens(denoiser, ["to_k"], calls)
    assert not found.refused
    assert (constant_of(found).shape, constant_of(found).dtype) == ((1, 3), torch.float32)
    expected = denoiser.to_k(calls[0].args[0])[0, :1]
    assert torch.allclose(constant_of(found), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_one_huge_value_does_not_hide_that_the_others_differ(dtype: torch.dtype):
    texts = call(1, 2).args[0]
    texts[1, 0, 2] += 5
    found = constant_tokens(_Denoiser().to(dtype), ["to_k"], [Call((texts.to(dtype),), {})])
    assert "first token is not the same" in found.refused["to_k"].why


def test_the_token_it_is_the_output_of_is_kept_beside_it():
    found = constant_tokens(_Denoiser(), ["to_k"], [call(1, 2)])
    known = from_bits(found.tensors["to_k"]["known_input"], torch.bfloat16)
    assert torch.equal(known, call(1, 2).args[0][0, :1].bfloat16().float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_of_half_precision_models_it_is_float32(dtype: torch.dtype):
    found = constant_tokens(_Denoiser().to(dtype), ["to_k"], [call(1, 2).to(dtype=dtype)])
    assert constant_of(found).dtype == torch.float32


def test_it_does_not_hold_on_to_the_output():
    found = constant_tokens(_Denoiser(), ["to_k"], [call(1, 2)])
    assert constant_of(found).untyped_storage().nbytes() == 3 * 4


def test_each_layer_is_judged_by_itself():
    found = constant_tokens(_Denoiser(), ["to_k", "mixed"], [call(1, 2)])
    assert list(found.tensors) == ["to_k"]
    assert list(found.refused) == ["mixed"]


@pytest.mark.parametrize("scale", [1e-7, 0.0])
def test_rounding_is_no_difference(scale: float):
    assert constant_tokens(_Denoiser(), ["to_k"], [call(1, 2, scale=scale)]).tensors


@pytest.mark.parametrize("calls", [[call(1, 2, scale=1e-3)], [call(1), call(2, scale=1e-3)]])
def test_a_first_token_that_depends_on_the_prompt_is_refused(calls: list[Call]):
    assert "first token is not the same" in refusal("to_k", *calls)


def test_a_first_token_that_depends_on_all_others_is_refused():
    assert "first token is not the same" in refusal("mixed", call(1, 2))


@pytest.mark.parametrize("calls", [[call(1)], [call(1, 1), call(1)]], ids=["one", "repeated"])
def test_equal_prompts_show_nothing(calls: list[Call]):
    assert "record two different prompts" in refusal("to_k", *calls)


def test_prompts_of_other_lengths_are_different_ones():
    calls = [call(1), call(1, tokens=7)]
    assert constant_tokens(_Denoiser(), ["to_k"], calls).tensors


def test_a_single_token_is_refused():
    found = constant_tokens(
        nn.Sequential(nn.Linear(4, 3)), ["0"], [Call((torch.rand(2, 1, 4),), {})]
    )
    assert "single token" in found.refused["0"].why


def test_an_input_without_tokens_is_refused():
    assert "(2, 4) is not [batch, tokens, features]" in refusal("pooled", call(1, 2))


def test_other_layers_are_refused():
    assert refusal("conv", call(1, 2)) == "it is a Conv1d, neither a Linear nor a Conv2d"


@pytest.mark.parametrize(
    ("name", "calls"), [("unused", [call(1, 2)]), ("to_k", [])], ids=["idle", "no calls"]
)
def test_a_layer_that_no_call_reaches_is_refused(name: str, calls: list[Call]):
    assert refusal(name, *calls) == "no recorded call reaches it"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_are_refused(value: float):
    broken = call(1, 2)
    broken.args[0][0, 2, 1] = value
    assert "NaN or infinite" in refusal("to_k", broken)


def test_nothing_is_left_behind():
    denoiser = _Denoiser()
    with pytest.raises(AttributeError):
        constant_tokens(denoiser, ["to_k", "missing"], [call(1, 2)])
    assert not any(module._forward_hooks for module in denoiser.modules())


def test_a_causal_text_encoder_gives_every_prompt_the_same_first_token():
    pipe = tiny.tiny_stable_diffusion()
    calls = record_calls(pipe, Sampling(("owl", "red fox"), steps=1))
    names = [n for n, _ in pipe.unet.named_modules() if n.endswith(("attn2.to_k", "attn2.to_v"))]
    found = constant_tokens(pipe.unet, [*names, names[0].replace("attn2", "attn1")], calls)
    assert list(found.tensors) == names
    assert len(found.refused) == 1


@dataclass(frozen=True)
class _Kept(Evened):
    """Keeps the outputs that it observes."""

    kind = "kept"
    seen: ClassVar[list[Tensor]] = []

    def observer(self, reader: Reader, siblings: Sequence[Reader]) -> Observer:
        return _Keeping(super().observer(reader, siblings), self.seen)


@dataclass
class _Keeping:
    usual: Observer
    seen: list[Tensor]

    def observe(self, x: Tensor, output: Callable[[], Tensor]) -> None:
        self.usual.observe(x, output)
        self.seen.append(output())

    def tensors(self) -> Tensors:
        return self.usual.tensors()


class TestComposition:
    """Tensors of an inner structure are found after those of the outer one."""

    def test_an_inner_one_sees_what_its_part_does(self):
        denoiser, calls = _Denoiser(), [call(1, 2)]
        structures = (ConstantTokens(1), Evened())
        found = observe_structures(denoiser, {"to_k": structures}, calls)
        assert found.tensors["to_k"].keys() == {"constant", "known_input", "others.exponent"}
        rest = [Call((calls[0].args[0][:, 1:],), {})]
        alone = observe_structures(denoiser, {"to_k": (Evened(),)}, rest)
        exponent = found.tensors["to_k"]["others.exponent"]
        assert torch.equal(exponent, alone.tensors["to_k"]["exponent"])
        assert int(exponent.abs().max()) < 5  # of the first token, with its 800, there is nothing

    def test_an_outer_one_is_found_first_and_changes_what_the_inner_sees(self):
        denoiser, calls = _Denoiser(), [call(1, 2)]
        structures = (Evened(), ConstantTokens(1))
        found = observe_structures(denoiser, {"to_k": structures}, calls)
        constant = from_bits(found.tensors["to_k"]["scaled.constant"], torch.float32)
        # The bias is the outer one's affair.
        expected = denoiser.to_k(calls[0].args[0])[0, :1] - denoiser.to_k.bias
        torch.testing.assert_close(constant, expected, rtol=1e-5, atol=1e-3)

    def test_every_part_is_watched(self):
        structures = (SplitInput(1), Evened())
        found = observe_structures(_Denoiser(), {"to_k": structures}, [call(1, 2)])
        tensors = found.tensors["to_k"]
        assert {name: len(tensor) for name, tensor in tensors.items()} == {
            "first.exponent": 1,
            "second.exponent": 3,
        }

    def test_an_outer_one_that_is_refused_ends_it(self):
        found = observe_structures(
            _Denoiser(), {"mixed": (ConstantTokens(1), Evened())}, [call(1, 2)]
        )
        assert found.refused["mixed"].kind == "constant_tokens"

    def test_outputs_of_a_part_do_not_come_from_geometries_that_onednn_computes_wrongly(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        conv = nn.Conv2d(4, 3, 1, stride=(1, 2), padding=(2, 1), dilation=(1, 3))
        x, seen = torch.rand(2, 4, 5, 5), list[Tensor]()
        monkeypatch.setattr(_Kept, "seen", seen)
        convolved, convolve = list[Tensor](), functional.conv2d

        def counted(x: Tensor, *arguments: Any) -> Tensor:
            convolved.append(x)
            return convolve(x, *arguments)

        monkeypatch.setattr(functional, "conv2d", counted)
        observe_structures(nn.Sequential(conv), {"0": (InputScale(), _Kept())}, [Call((x,), {})])
        (output,) = seen
        torch.testing.assert_close(output, conv(x) - conv.bias.view(-1, 1, 1))
        # The model's own layer, here and in the observed call, and nobody else.
        assert len(convolved) == 2

    def test_ranges_are_of_what_the_quantizers_see(self):
        denoiser, calls = _Denoiser(), [call(1, 2)]
        structures = (ConstantTokens(1), Evened())
        tensors = observe_structures(denoiser, {"to_k": structures}, calls).tensors
        choices = {"to_k": Choice("int8/channel", "uint8/tensor", structures)}
        (seen,) = input_ranges(denoiser, choices, calls, tensors=tensors, momentum=None)["to_k"]
        scale = tensors["to_k"]["others.exponent"].float().exp2()
        smooth = calls[0].args[0][:, 1:] / scale
        assert seen == InputRange(float(smooth.min()), float(smooth.max()))

    def test_ranges_that_depend_on_what_is_not_calibrated_are_refused(self):
        choices = {"to_k": Choice("int8/channel", "uint8/tensor", (Evened(),))}
        with pytest.raises(FormatError, match="exponent has to be calibrated first"):
            input_ranges(_Denoiser(), choices, [call(1, 2)], momentum=None)

    def test_sizes_need_nothing_calibrated(self):
        choices = {"to_k": Choice("int8/channel", structures=(ConstantTokens(1), Evened()))}
        graph = trace_graph(_Denoiser(), call(1, 2))
        assert input_sizes(_Denoiser(), graph, choices) == {"to_k": 2 * 4 * 4}


def test_more_first_tokens_than_one_may_be_constant():
    text = call(1, 2).args[0]
    text[:, 1] = 2.0
    found = observe_structures(_Denoiser(), {"to_k": (ConstantTokens(2),)}, [Call((text,), {})])
    constant = found.tensors["to_k"]["constant"]
    torch.testing.assert_close(from_bits(constant, torch.float32), _Denoiser().to_k(text)[0, :2])
    found = observe_structures(_Denoiser(), {"to_k": (ConstantTokens(3),)}, [Call((text,), {})])
    assert found.refused["to_k"].why.startswith("its first 3 tokens are not the same")
