"""Comparison of first tokens with those that constants were calibrated for."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from torch import Tensor, nn

from mezzotint.errors import CalibrationWarning
from mezzotint.formats import as_bits, from_bits
from mezzotint.plan import Choice, Plan
from mezzotint.runtime import (
    Calibration,
    ConstantTokens,
    PackedLayer,
    pack_module,
    share_token_check,
)
from mezzotint.runtime.token_check import NEAR, OTHER, SAME, KnownTokens, TokenCheck
from tests.runtime.layers import linear, noise
from tests.runtime.structured import TEXT, constants, known_tokens, packed, text

KNOWN = known_tokens(1, 19)
STORED = as_bits(KNOWN)

WARNED = pytest.warns(CalibrationWarning, match="first token of a text is another than the one")


def mixed() -> Tensor:
    """A batch of texts: of the known token, one that is near, zeros, and another token."""
    x = text(4, 5, 19)
    x[1, 0] += 0.2 * noise(19, seed=9)
    x[2, 0] = 0
    x[3, 0] = 8 * noise(19, seed=8)
    return x


def quietly(layer: nn.Module, x: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        output: Tensor = layer(x)
    return output


class TestKinds:
    def test_each_sample_is_judged_by_itself(self):
        kinds = KnownTokens.of(STORED).kinds(mixed()[:, :1])
        assert kinds.flatten().tolist() == [SAME, NEAR, OTHER, OTHER]

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_the_rounding_of_a_dtype_is_no_difference(self, dtype: torch.dtype):
        x = noise(64, 1, 19, seed=4).to(dtype)
        for each in x:
            assert KnownTokens.of(as_bits(each.bfloat16())).kinds(each[None]).tolist() == [[SAME]]

    def test_one_huge_value_does_not_hide_that_the_others_differ(self):
        known = KNOWN.float()
        known[0, 3] = 1e4
        x = known[None].clone()
        x[..., 4:] *= 1.2
        assert KnownTokens.of(as_bits(known.bfloat16())).kinds(x).tolist() == [[NEAR]]

    def test_known_zeros_are_told_from_all_else(self):
        zeros = KnownTokens.of(as_bits(torch.zeros(1, 19, dtype=torch.bfloat16)))
        x = torch.zeros(2, 1, 19)
        x[1, 0, 0] = 1e-3
        assert zeros.kinds(x).tolist() == [[SAME], [OTHER]]

    def test_nan_is_another_token(self):
        x = torch.full((1, 1, 19), torch.nan)
        assert KnownTokens.of(STORED).kinds(x).tolist() == [[OTHER]]


class TestOutputs:
    @pytest.mark.parametrize("activation", ["float", "int8/token", "uint8/tensor"])
    def test_of_each_kind_of_token(self, activation: str):
        layer = packed(linear(), Choice("int4/channel", activation, (ConstantTokens(1),)))
        x = mixed()
        y = quietly(layer, x)[:, 0]
        constant, bias = from_bits(layer.constant, torch.float32)[0], layer.bias
        assert torch.equal(y[0], constant)
        assert torch.equal(y[2], bias)
        seen = torch.stack([x[1, :1] - KNOWN.float(), x[3, :1]])
        weighed = layer.others.round_input(seen) @ layer.dequantized_weight().T
        torch.testing.assert_close(y[1], weighed[0, 0] + constant, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(y[3], weighed[1, 0] + bias, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("activation", ["float", "int8/token", "uint8/tensor"])
    def test_other_samples_and_tokens_stay_as_they_are(self, activation: str):
        choice = Choice("int4/channel", activation, (ConstantTokens(1),))
        alike, x = text(4, 5, 19), mixed()
        expected = packed(linear(), choice)(alike)
        y = quietly(packed(linear(), choice), x)
        assert torch.equal(y[0, 0], expected[0, 0])
        torch.testing.assert_close(y[:, 1:], expected[:, 1:], rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_in_half_precision(self, dtype: torch.dtype):
        layer, x = packed(linear(), TEXT), mixed()
        exact = quietly(layer, x)
        half = quietly(copy.deepcopy(layer).to(dtype), x.to(dtype))
        assert half.dtype == dtype
        torch.testing.assert_close(half.float(), exact, rtol=0.05, atol=0.1)

    def test_gradients_pass(self):
        layer, x = packed(linear(), TEXT), mixed().requires_grad_()
        quietly(layer, x).sum().backward()
        assert x.grad is not None
        assert bool((x.grad[0, 0] == 0).all())
        assert bool((x.grad[1:, 0] != 0).any(-1).all())

    def test_nearer_than_the_token_itself_would_be(self):
        """W x₀ is exact in W x₀ + W (x - x₀), and the rest alone is rounded."""
        layer, choice = linear(), Choice("int2/channel", "float", (ConstantTokens(1),))
        tensors = constants(choice, layer)
        tensors["constant"] = as_bits(layer(KNOWN.float()).detach())
        module = nn.Sequential(copy.deepcopy(layer))
        pack_module(module, Plan({"0": choice}), Calibration(tensors={"0": tensors}))
        x = mixed()[1:2]
        error = (quietly(module, x) - layer(x))[:, 0].norm()
        alone = (packed(layer, choice.plain)(x) - layer(x))[:, 0].norm()
        constant = (layer(KNOWN.float()) - layer(x)[:, 0]).norm()
        assert error < min(alone, constant) / 2


class TestTelling:
    def test_once_for_all_layers_of_a_model(self):
        module = two_layers()
        with WARNED:
            module[0](mixed())
        module[1](mixed())
        module[0](mixed())

    def test_again_for_a_copy_and_a_pickle(self):
        module = two_layers()
        quietly(module[0], mixed())
        module[1](mixed())
        for again in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            with WARNED:
                again[0](mixed())
            again[1](mixed())

    def test_not_for_the_known_token(self):
        packed(linear(), TEXT)(text(4, 5, 19))

    def test_from_compiled_code_too(self):
        layer, x = packed(linear(), TEXT), mixed()
        torch._dynamo.reset()
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        compiled(text(4, 5, 19))
        with WARNED:
            y = compiled(x)
        compiled(x)
        torch.testing.assert_close(y, layer(x))

    def test_exported_code_decides_by_itself(self):
        module = nn.Sequential(packed(linear(), TEXT))
        exported = torch.export.export(module, (text(4, 5, 19),), strict=False).module()
        x = mixed()
        torch.testing.assert_close(exported(x), quietly(module, x))
        assert "compared_tokens" not in str(exported.graph)


class TestWork:
    """One comparison of each tensor."""

    @pytest.fixture
    def compared(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        done: list[int] = []
        kinds = KnownTokens.kinds

        def counted(known: KnownTokens, first: Tensor) -> Tensor:
            done.append(len(first))
            return kinds(known, first)

        monkeypatch.setattr(KnownTokens, "kinds", counted)
        return done

    def test_for_all_layers_that_read_it_and_all_steps(self, compared: list[int]):
        module, x = two_layers(), text(4, 5, 19)
        for _ in range(3):
            module[0](x)
            module[1](x)
        assert compared == [4]

    def test_another_for_another_tensor(self, compared: list[int]):
        module = two_layers()
        module[0](text(4, 5, 19))
        module[0](text(2, 5, 19))
        assert compared == [4, 2]

    def test_another_for_a_tensor_that_was_written_to(self):
        module, x = two_layers(), text(4, 5, 19)
        before = module[0](x)
        x[:, 0] = 0
        with WARNED:
            assert not torch.equal(module[0](x), before)

    def test_another_where_other_tokens_are_known(self, compared: list[int]):
        module, x = two_layers(), text(4, 5, 19)
        module[0](x)
        module[1].known_input.copy_(as_bits(7 * KNOWN))
        with WARNED:
            module[1](x)
        assert compared == [4, 4]

    def test_inference_tensors_are_compared_in_each_call(self):
        module = two_layers()
        with torch.inference_mode():
            x = text(4, 5, 19)
            module[0](x)
            x[:, 0] = 0
            with WARNED:
                module[0](x)

    def test_nothing_is_kept_of_tensors_that_are_gone(self):
        check = TokenCheck()
        assert check.kinds(text(4, 5, 19), STORED) is None
        assert not check._compared


def two_layers() -> nn.Sequential:
    """Two layers that store the same token, and share what is found."""
    module = nn.Sequential(*(packed(linear(), TEXT) for _ in range(2)))
    share_token_check(module)
    assert all(isinstance(layer, PackedLayer) for layer in module)
    return module
