"""Replayed outputs are those of full runs, bit for bit, for whatever a model's code does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel
from torch import Tensor, nn

from mezzotint.measuring import LayerChange, Replay
from mezzotint.models import Call, inventory
from mezzotint.models.examples import example_call
from mezzotint.plan import Choice
from mezzotint.runtime import Calibration
from tests.measuring import denoisers
from tests.measuring.restoring import assert_restored, state
from tests.models.tiny import tiny_dit, tiny_pixart, tiny_unet

W2 = Choice("int2/channel")
CALIBRATION = Calibration()


def tiny_sd3() -> nn.Module:
    torch.manual_seed(5)
    return SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pooled_projection_dim=16,
        out_channels=4,
        pos_embed_max_size=8,
    )


def tiny_flux() -> nn.Module:
    torch.manual_seed(6)
    return FluxTransformer2DModel(
        in_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=(2, 2, 4),
    )


def toy_calls(denoiser: nn.Module) -> tuple[Call, ...]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 4, generator=generator)
    return Call((x,), {}), Call((-x,), {})


def model_calls(denoiser: nn.Module) -> tuple[Call, ...]:
    """The example call on few tokens, filled with random numbers, at two timesteps."""
    generator = torch.Generator().manual_seed(1)
    calls = []
    for timestep in (999, 499):

        def filled(tensor: Tensor, timestep: int = timestep) -> Tensor:
            shape = [16 if size >= 256 else size for size in tensor.shape]
            if not tensor.is_floating_point():
                return torch.ones(shape, dtype=tensor.dtype)
            if tensor.ndim < 2:
                return torch.full(shape, float(timestep))
            return torch.randn(shape, generator=generator)

        calls.append(example_call(denoiser).mapped(filled))
    return tuple(calls)


def supported(denoiser: nn.Module) -> list[str]:
    return [layer.name for layer in inventory(denoiser) if layer.supported]


TOYS: dict[str, Callable[[], nn.Module]] = {
    "chain": denoisers.Chain,
    "shared modules": denoisers.Shared,
    "nested modules": denoisers.Nested,
    **{
        f"returns {kind}": lambda kind=kind: denoisers.Returning(kind)
        for kind in ("tuple", "list", "dict", "nested", "output")
    },
    "emptied list": denoisers.Emptying,
    "output changed before": lambda: denoisers.ChangedOutput("before"),
    "output changed after": lambda: denoisers.ChangedOutput("after"),
    "input changed": denoisers.ChangedInput,
    "unknown object": denoisers.Secretive,
    "branches": denoisers.Branching,
}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "unet": tiny_unet,
    "pixart": tiny_pixart,
    "dit": tiny_dit,
    "sd3": tiny_sd3,
    "flux": tiny_flux,
}


@torch.no_grad()
def full(denoiser: nn.Module, layer: str, calls: Sequence[Call]) -> list[Tensor]:
    with LayerChange(layer, W2).applied(denoiser, CALIBRATION):
        return [call.run(denoiser) for call in calls]


@torch.no_grad()
def replayed(replay: Replay, layer: str) -> list[Tensor]:
    replay.advance(layer)
    with LayerChange(layer, W2).applied(replay.denoiser, CALIBRATION):
        # Twice: a run may not spoil what is remembered.
        for call in replay.calls:
            replay.run(call)
        return [replay.run(call) for call in replay.calls]


def same(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().eval()


class TestOutputs:
    @pytest.mark.parametrize("make", TOYS.values(), ids=TOYS)
    def test_layer_by_layer_they_are_those_of_full_runs(self, make: Callable[[], nn.Module]):
        denoiser = seeded(make)
        replay = Replay(denoiser, toy_calls(denoiser))
        layers = [n for n, m in denoiser.named_modules() if isinstance(m, nn.Linear)]
        for layer in replay.order(layers):
            assert same(replayed(replay, layer), full(denoiser, layer, replay.calls)), layer

    @pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
    def test_whatever_the_architecture(self, make: Callable[[], nn.Module]):
        denoiser = seeded(make)
        replay = Replay(denoiser, model_calls(denoiser))
        before = state(denoiser)
        for layer in replay.order(supported(denoiser))[::2]:
            assert same(replayed(replay, layer), full(denoiser, layer, replay.calls)), layer
        assert_restored(denoiser, before)

    @pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
    def test_layers_may_be_visited_in_any_order(self, make: Callable[[], nn.Module]):
        denoiser = seeded(make)
        replay = Replay(denoiser, model_calls(denoiser)[:1])
        layers = replay.order(supported(denoiser))
        for layer in [*layers[::7], *layers[::-9]]:
            assert same(replayed(replay, layer), full(denoiser, layer, replay.calls)), layer

    def test_other_calls_run_in_full(self, unet: nn.Module, calls: Sequence[Call]):
        replay = Replay(unet, calls[:1])
        replay.advance("conv_out")
        with torch.no_grad():
            assert torch.equal(replay.run(calls[1]), calls[1].output)


@contextmanager
def counted(denoiser: nn.Module) -> Iterator[Counter[str]]:
    """Count of each layer's computations; replaced forward methods do not compute."""
    counts: Counter[str] = Counter()
    real = {m: (n, m.forward) for n, m in denoiser.named_modules() if isinstance(m, nn.Linear)}

    def counting(name: str, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(*args: Tensor) -> Tensor:
            counts[name] += 1
            return forward(*args)

        return run

    for module, (name, forward) in real.items():
        module.forward = counting(name, forward)
    yield counts
    for module in real:
        del module.forward


class TestSaving:
    def test_what_has_run_before_the_layer_is_not_computed(self):
        chain = seeded(denoisers.Chain)
        with counted(chain) as counts:
            replay = Replay(chain, toy_calls(chain)[:1])
            replay.advance("second.0")
            counts.clear()
            replay.run(replay.calls[0])
        assert counts == {"second.0": 1, "second.2": 1}

    def test_from_one_layer_to_the_next_only_what_lies_between_is_computed(self):
        chain = seeded(denoisers.Chain)
        with counted(chain) as counts:
            replay = Replay(chain, toy_calls(chain)[:1])
            replay.advance("second.0")
            counts.clear()
            replay.advance("second.2")
        assert counts == {"second.0": 1}

    def test_staying_at_a_layer_computes_nothing(self):
        chain = seeded(denoisers.Chain)
        replay = Replay(chain, toy_calls(chain))
        replay.advance("second.2")
        with counted(chain) as counts:
            replay.advance("second.2")
        assert not counts

    def test_layers_are_ordered_by_execution(self):
        chain = seeded(denoisers.Chain)
        names = ["first.0", "first.2", "second.0", "second.2"]
        assert Replay(chain, toy_calls(chain)).order(reversed(names)) == names


class TestMemory:
    OUTPUT = 3 * 4 * 4  # bytes of one output of a toy

    def test_only_the_outermost_finished_modules_are_remembered(self):
        chain = seeded(denoisers.Chain)
        replay = Replay(chain, toy_calls(chain)[:1])
        held = []
        for layer in ("first.0", "first.2", "second.0", "second.2"):
            replay.advance(layer)
            held.append(replay.bytes_held // self.OUTPUT)
        assert held == [0, 2, 1, 3]

    @pytest.mark.parametrize(("fitting", "limit"), [(0, 1), (0, 47), (1, 48), (1, 95), (2, 96)])
    def test_calls_that_do_not_fit_run_in_full(self, fitting: int, limit: int):
        chain = seeded(denoisers.Chain)
        replay = Replay(chain, toy_calls(chain), cache_bytes=limit)
        with counted(chain) as counts:
            replay.advance("second.0")
            counts.clear()
            for call in replay.calls:
                replay.run(call)
        assert counts["first.0"] == 2 - fitting
        assert replay.bytes_held == fitting * self.OUTPUT <= limit
        assert same(replayed(replay, "second.0"), full(chain, "second.0", replay.calls))

    def test_a_call_that_did_not_fit_may_fit_later(self):
        chain = seeded(denoisers.Chain)
        replay = Replay(chain, toy_calls(chain)[:1], cache_bytes=self.OUTPUT)
        replay.advance("first.2")
        assert replay.bytes_held == 0
        replay.advance("second.0")
        assert replay.bytes_held == self.OUTPUT

    def test_the_bound_holds_all_the_way(self, unet: nn.Module, calls: Sequence[Call]):
        limit = 40_000
        replay = Replay(unet, calls, cache_bytes=limit)
        held = []
        for layer in replay.order(supported(unet))[::5]:
            assert same(replayed(replay, layer), full(unet, layer, calls)), layer
            held.append(replay.bytes_held)
        assert limit / 2 < max(held) <= limit

    def test_it_can_be_switched_off(self):
        chain = seeded(denoisers.Chain)
        with counted(chain) as counts:
            replay = Replay(chain, toy_calls(chain)[:1], cache_bytes=0)
            assert replay.order(["second.0", "first.0"]) == ["second.0", "first.0"]
            replay.advance("second.2")
            assert not counts
            replay.run(replay.calls[0])
        assert set(counts.values()) == {1}
        assert len(counts) == 4


class TestModule:
    def test_hooks_run_for_replayed_modules_too(self):
        chain = seeded(denoisers.Chain)
        replay = Replay(chain, toy_calls(chain)[:1])
        replay.advance("second.0")
        seen: list[Tensor] = []
        chain.first.register_forward_hook(lambda module, args, output: seen.append(output))
        replay.run(replay.calls[0])
        assert len(seen) == 1

    def test_forward_methods_of_accelerate_s_hooks_are_put_back(self):
        chain = seeded(denoisers.Chain)
        for module in (chain.first, chain.first[0], chain.second[0]):
            add_hook_to_module(module, ModelHook())
        own = chain.first.forward
        replay = Replay(chain, toy_calls(chain))
        assert same(replayed(replay, "second.2"), full(chain, "second.2", replay.calls))
        assert chain.first.forward is own

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_everything_is_put_back_after_a_failure(self, error: type[BaseException]):
        chain = seeded(denoisers.Chain)
        before = state(chain)
        replay = Replay(chain, toy_calls(chain))
        replay.advance("first.2")

        def fail(*args: object) -> None:
            raise error

        hook = chain.second[2].register_forward_hook(fail)
        with pytest.raises(error):
            replay.run(replay.calls[0])
        hook.remove()
        hook = chain.first[2].register_forward_hook(fail)
        with pytest.raises(error):
            replay.advance("second.2")
        hook.remove()
        assert_restored(chain, before)
        assert same(replayed(replay, "second.2"), full(chain, "second.2", replay.calls))
