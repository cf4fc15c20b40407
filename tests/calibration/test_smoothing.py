"""Smoothing exponents: from the peaks of recorded inputs, and of all weights that they meet."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from mezzotint.calibration import calibrated, observe_structures
from mezzotint.errors import PlanError
from mezzotint.models import Call, trace_graph
from mezzotint.plan import Choice, Encoding, Plan, Structure
from mezzotint.runtime import ConstantTokens, Smoothing, SplitInput

SMOOTHED = (Smoothing(),)


class _Attention(nn.Module):
    """Three projections of one tensor, one of another of the same values, and two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.to_q = nn.Linear(4, 4)
        self.to_k = nn.Linear(4, 4)
        self.to_v = nn.Linear(4, 6)
        self.of_copy = nn.Linear(4, 4)
        self.first = nn.Conv2d(4, 2, 1)
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.unused = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.to_q(x) + self.to_k(x) + self.to_v(x)[..., :4] + self.of_copy(x * 1.0)
        images = y.transpose(1, 2).unflatten(2, (2, 2))
        return self.first(images).sum(1, keepdim=True) + self.second(images)


SIBLINGS = ("to_q", "to_k", "to_v")


def call(scale: float = 1.0, batch: int = 2, seed: int = 0) -> Call:
    x = torch.randn(batch, 4, 4, generator=torch.Generator().manual_seed(seed))
    return Call((x * torch.tensor([scale, 1.0, 1.0, 0.0]),), {})


def exponents(
    denoiser: nn.Module, structures: dict[str, tuple[Structure, ...]], *calls: Call
) -> dict[str, Tensor]:
    """`layer.name` → tensor, of all layers."""
    found = observe_structures(denoiser, structures, calls)
    assert not found.refused
    return {
        f"{layer}.{name}": tensor
        for layer, tensors in found.tensors.items()
        for name, tensor in tensors.items()
    }


def expected(x: Tensor, *weights: Tensor) -> list[int]:
    """Rounded log2 of s_j, written out."""
    channels = x.flatten(0, -2).abs().amax(0).tolist()
    columns = torch.cat(weights).abs().amax(0).tolist()
    return [
        round(0.5 * math.log2(top / column)) if top and column else 0
        for top, column in zip(channels, columns, strict=True)
    ]


def test_they_are_of_the_peaks_over_all_calls():
    denoiser, calls = _Attention(), (call(1.0), call(4000.0, seed=1), call(2.0, seed=2))
    found = exponents(denoiser, {"of_copy": SMOOTHED}, *calls)["of_copy.exponent"]
    x = torch.cat([each.args[0] for each in calls])
    assert found.dtype == torch.int8
    assert found.tolist() == expected(x, denoiser.of_copy.weight.detach())
    assert found[0] >= 5


def test_layers_that_read_one_tensor_have_the_same_whatever_is_asked_of_the_others():
    denoiser = _Attention()
    denoiser.to_v.weight.data[:, 1] *= 1000
    together = exponents(denoiser, dict.fromkeys(SIBLINGS, SMOOTHED), call())
    weights = [denoiser.get_submodule(name).weight.detach() for name in SIBLINGS]
    for name in SIBLINGS:
        found = together[f"{name}.exponent"]
        assert found.tolist() == expected(call().args[0], *weights)
        alone = exponents(denoiser, {name: SMOOTHED}, call())
        assert torch.equal(alone[f"{name}.exponent"], found)
    copied = exponents(denoiser, {"of_copy": SMOOTHED}, call())["of_copy.exponent"]
    assert copied[1] - together["to_q.exponent"][1] >= 4


def test_convolutions_of_other_kernels_and_groups_share_them_too():
    denoiser = _Attention()
    found = exponents(denoiser, {"first": SMOOTHED, "second": SMOOTHED}, call())
    assert torch.equal(found["first.exponent"], found["second.exponent"])
    denoiser.second.weight.data[2:, 1] *= 2**10  # input channel 3 of the second group
    after = exponents(denoiser, {"first": SMOOTHED}, call())["first.exponent"]
    assert (found["first.exponent"] - after).tolist() == pytest.approx([0, 0, 0, 5], abs=1)


def test_dead_channels_and_dead_weights_are_left_alone():
    denoiser = _Attention()
    for name in SIBLINGS:
        denoiser.get_submodule(name).weight.data[:, 1] = 0
    found = exponents(denoiser, {"to_q": SMOOTHED}, call())["to_q.exponent"]
    assert found[1] == 0
    assert found[3] == 0


def test_channels_that_are_not_finite_are_left_alone():
    x = call().args[0].clone()
    x[0, 0, 2] = math.inf
    found = exponents(_Attention(), {"to_q": SMOOTHED}, Call((x,), {}))["to_q.exponent"]
    assert found[2] == 0


def test_each_half_of_a_split_input_has_its_own_and_siblings_share_them():
    denoiser, structures = _Attention(), (SplitInput(1), *SMOOTHED)
    split = exponents(denoiser, {"to_q": structures}, call(500.0))
    whole = exponents(denoiser, {"to_k": SMOOTHED}, call(500.0))["to_k.exponent"]
    halves = [split["to_q.first.exponent"], split["to_q.second.exponent"]]
    assert torch.equal(torch.cat(halves), whole)


def test_constant_tokens_count_neither_here_nor_in_calls_of_other_prompts():
    denoiser, structures = _Attention(), (ConstantTokens(1), *SMOOTHED)
    calls = [call(), call(seed=1)]
    for each in (*calls, probe := call(300.0, seed=2)):
        each.args[0][:, 0] = torch.tensor([900.0, 0.0, 0.0, 0.0])
    found = observe_structures(denoiser, {"to_k": structures}, calls, probes=[probe])
    rest = torch.cat([each.args[0][:, 1:] for each in calls])
    weights = [denoiser.get_submodule(name).weight.detach() for name in SIBLINGS]
    assert found.tensors["to_k"]["others.exponent"].tolist() == expected(rest, *weights)


def test_what_is_known_already_is_not_looked_for_again():
    denoiser, known = _Attention(), {"exponent": torch.ones(4, dtype=torch.int8)}
    found = observe_structures(denoiser, {"to_q": SMOOTHED}, (), known={"to_q": known})
    assert found.tensors["to_q"] == known


def test_a_graph_that_is_given_tells_the_siblings():
    denoiser = _Attention()
    denoiser.to_v.weight.data *= 64
    graph = trace_graph(denoiser, call())
    given = observe_structures(denoiser, {"to_q": SMOOTHED}, [call()], graph=graph)
    traced = exponents(denoiser, {"to_q": SMOOTHED}, call())
    assert torch.equal(given.tensors["to_q"]["exponent"], traced["to_q.exponent"])


def test_a_layer_that_is_never_called_is_named():
    plan = Plan({"unused": Choice("int4/channel", structures=SMOOTHED)})
    with pytest.raises(PlanError, match="layer unused: smoothing: no recorded call reaches it"):
        calibrated(_Attention(), plan, [call()])


def test_gram_matrices_are_those_of_the_smoothed_inputs():
    plan = Plan(
        {"to_q": Choice("int4/channel", structures=SMOOTHED)},
        encoding=Encoding(rounding="feedback"),
    )
    found = calibrated(_Attention(), plan, [call(300.0)])
    scale = found.tensors["to_q"]["exponent"].float().exp2()
    rows = (call(300.0).args[0] / scale).flatten(0, 1)
    (block,) = found.moments["to_q"][0].blocks
    torch.testing.assert_close(block[0], rows.T @ rows / len(rows))
