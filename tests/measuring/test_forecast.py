"""Time that measuring will take: units × seconds, told to whoever listens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import mezzotint as mz
from mezzotint._progress import OVERALL, listening
from mezzotint.measuring import Forecast, at_most, checkpointing, tell, timed_call
from mezzotint.models import find_denoiser


class TestLine:
    @pytest.mark.parametrize(
        ("units", "seconds", "end"),
        [
            (372, 0.8, "372 units at 0.8 s each: about 5 minutes"),
            (1, 0.25, "1 units at 0.25 s each: about 1 second"),
            (60, 1.0, "60 units at 1 s each: about 60 seconds"),
            (2232, 72.4, "2,232 units at 72 s each: about 45 hours"),
            (100_000, 72.0, "100,000 units at 72 s each: about 83 days"),
            (10, 600.0, "10 units at 600 s each: about 2 hours"),
        ],
    )
    def test_it_says_units_seconds_and_their_product(self, units, seconds, end):
        assert Forecast(units, seconds).line("Measuring") == f"Measuring: {end}"

    def test_what_comes_before_the_first_is_told_and_counted(self):
        assert Forecast(48, 60.0, before=120.0).line("Measuring", "changes") == (
            "Measuring: 48 changes at 60 s each, after 120 s of preparation: about 50 minutes"
        )

    def test_units_have_a_name(self):
        assert "64 probes at" in Forecast(64, 3).line("Probing", "probes")


class TestBound:
    @pytest.mark.parametrize(
        ("probes", "runs", "line"),
        [
            (192, 6, "Then at the most 192 more probes and 6 runs: about 5 minutes"),
            (0, 6, "Then at the most 6 runs: about 2 minutes"),
            (0, 0, "Then at the most nothing: about 1 second"),
        ],
    )
    def test_it_names_what_there_is_and_the_time_of_all(self, probes, runs, line):
        stages = {"more probes": Forecast(probes, 1.0), "runs": Forecast(runs, 20.0)}
        assert at_most(stages) == line


class TestTelling:
    def test_a_unit_is_timed_only_where_someone_listens(self):
        lines: list[str] = []
        tell("Measuring", 3, lambda: pytest.fail("nobody listens"))
        with listening(lines.append):
            tell("Measuring", 3, lambda: 2.0)
        assert lines == ["Measuring: 3 units at 2 s each: about 6 seconds"]

    def test_nothing_is_told_of_no_work(self):
        with listening(pytest.fail):
            tell("Measuring", 0, lambda: 2.0)

    @pytest.fixture
    def recipe(self) -> mz.Auto:
        return mz.Auto(
            formats=("int4/channel", "int8/channel"),
            bos=False,
            shortcuts="none",
            sensitivity="measured",
            exchanges=False,
        )

    def test_a_recipe_tells_how_much_it_will_measure_and_on_what(self, pipe, recipe):
        layers = [layer for layer in mz.inventory(find_denoiser(pipe)[1]) if layer.supported]
        sampling, lines = mz.Sampling(("owl", "fox")), []
        calls = len(mz.record_calls(pipe, sampling))
        with listening(lines.append):
            mz.quantize(pipe, recipe, mz.Budget(12, act_bits=16), sampling=sampling)
        assert lines[1].startswith(
            f"Measuring: {2 * len(layers)} changes of {len(layers)} layers on {calls} calls at "
        )

    def test_probes_are_told_as_well(self, pipe, recipe):
        recipe, lines = replace(recipe, sensitivity="probes"), []
        with listening(lines.append):
            mz.quantize(pipe, recipe, mz.Budget(12), sampling=mz.Sampling(("owl", "fox")))
        assert lines[1].startswith("Probing: ")
        assert " probes at " in lines[1]

    def test_what_the_journal_holds_is_not_counted(self, pipe, recipe, tmp_path):
        sampling = mz.Sampling(("owl", "fox"))
        run = {"budget": mz.Budget(12), "sampling": sampling, "journal": tmp_path / "journal"}
        mz.quantize(pipe, recipe, **run)
        lines: list[str] = []
        with listening(lines.append):
            mz.quantize(pipe, recipe, **run)
        (line,) = lines
        assert line.startswith(OVERALL)
        assert ", less what was measured before: " in line


class TestTimedCall:
    @pytest.mark.parametrize("backward", [False, True], ids=["forward", "and-backward"])
    def test_it_leaves_the_model_as_it_was(self, unet, calls, backward):
        frozen, seen = unet.conv_in.weight.requires_grad_(False), unet.conv_out.weight
        seen.grad = torch.ones_like(seen)
        assert timed_call(unet, calls[0], backward=backward) > 0
        assert not frozen.requires_grad
        assert frozen.grad is None
        assert torch.equal(seen.grad, torch.ones_like(seen))
        assert not any(weight._post_accumulate_grad_hooks for weight in unet.parameters())

    def test_the_way_back_reaches_all_weights(self, unet, calls):
        reached: list[str] = []
        hooks = [
            weight.register_hook(lambda gradient, name=name: reached.append(name))
            for name, weight in unet.named_parameters()
        ]
        timed_call(unet, calls[0], backward=True)
        for hook in hooks:
            hook.remove()
        assert "conv_in.weight" in reached
        assert len(set(reached)) == len(hooks)

    @pytest.mark.parametrize("free", [0, 2**40], ids=["short", "ample"])
    def test_blocks_are_computed_again_where_memory_is_short(self, unet, calls, monkeypatch, free):
        monkeypatch.setattr(checkpointing, "free_bytes", lambda device: free)
        runs: list[bool] = []
        unet.down_blocks[0].resnets[0].register_forward_pre_hook(
            lambda *_: runs.append(torch.is_grad_enabled())
        )
        timed_call(unet, calls[0], backward=True)
        assert runs == [False, *[True] * (1 + (free == 0))]

    def test_it_works_on_a_frozen_model(self, unet, calls):
        unet.requires_grad_(False)
        assert timed_call(unet, calls[0], backward=True) > 0
