"""The cost of an update of training, calculated from shapes, is that of a real one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contestants.training_cost_table import markdown
from benchmarks.contestants.update_cost import (
    FLASH_OPERATIONS,
    Cost,
    Kept,
    Update,
    storage_key,
    trained_layers,
    update_cost,
)
from mezzotint.calibration import calibrated
from mezzotint.models import Call, Sampling, load_pipeline, record_calls
from mezzotint.models.skeleton import skeleton
from mezzotint.plan import Choice, Plan
from mezzotint.runtime import Smoothing, StepScales
from mezzotint.training import Rates, Student, Training
from mezzotint.training.optimizer import Optimizer
from mezzotint.training.relation import capturing, feature_distance, output_norm
from tests.models import tiny

UPDATE = Update(steps=2, rank=3, window=2)


@dataclass(frozen=True)
class Measured:
    """Figures of a real update, in the words of `Cost`."""

    lora: int
    quantizers: int
    gradients: int
    moments: int
    rounded_weights: int
    activations: int
    teacher_macs: int
    all_macs: int


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, tuple[Call, ...]]:
    """A small U-Net and its calls at both steps of a sampler."""
    folder: Path = tmp_path_factory.mktemp("cost") / "tiny"
    pipe = tiny.tiny_stable_diffusion()
    pipe.register_modules(unet=tiny.smallest_unet())
    pipe.save_pretrained(folder)
    tiny.write_generation(folder, num_inference_steps=2, guidance_scale=2.0)
    pipe = load_pipeline(folder)
    return pipe.unet, record_calls(pipe, Sampling(("owl", "red fox")))


@pytest.fixture(scope="module")
def calculated(calls: tuple[nn.Module, tuple[Call, ...]]) -> Cost:
    denoiser, (call, _) = calls
    return update_cost(skeleton(denoiser), call.to("meta"), UPDATE)


@pytest.fixture(scope="module")
def measured(calls: tuple[nn.Module, tuple[Call, ...]]) -> Measured:
    """The same update by training's own classes, with values."""
    denoiser, recorded = calls
    choice = Choice("uint2/channel", "uint4/step", (Smoothing(), StepScales(2)))
    plan = Plan(dict.fromkeys(trained_layers(denoiser, recorded[0]), choice))
    student = Student.of(
        denoiser, plan, calibrated(denoiser, plan, recorded), Training(steps=1, rank=UPDATE.rank)
    )
    optimizer, norm = Optimizer(student, Rates()), output_norm(denoiser, recorded[0])
    trained = student.parameters()
    floating = [*denoiser.parameters(), *denoiser.buffers()]
    known = {storage_key(each) for each in (*trained.values(), *floating)}
    rounding, teacher = Kept(known), 0
    features: tuple[list[torch.Tensor], list[torch.Tensor]] = [], []
    loss = torch.zeros(())
    with FlopCounterMode(display=False, custom_mapping=FLASH_OPERATIONS) as counter:
        with rounding.watching():
            holding = student.holding_weights()
            holding.__enter__()
        for weights in student._weights.values():
            rounding.note(weights[0], rounding.outside)
        kept = Kept(known | rounding.outside.keys())
        for call in recorded:
            before = counter.get_total_flops()
            with torch.no_grad(), capturing(norm) as theirs:
                y = call.run(denoiser)
            teacher += counter.get_total_flops() - before
            with student.quantized() as quantized, kept.watching(), capturing(norm) as ours:
                loss = loss + (y - call.run(quantized)).square().sum()
            features[0].extend(theirs)
            features[1].extend(ours)
        with kept.watching():
            loss = loss + feature_distance(*features)
        with student.quantized():
            loss.backward()
        total = counter.get_total_flops()
        holding.__exit__(None, None, None)
    gradients = sum(each.grad.nbytes for each in trained.values())
    optimizer.step(0.0)
    moments = sum(each.nbytes for name, each in optimizer.state().items() if "exp_avg" in name)
    lora = sum(each.nbytes for name, each in trained.items() if name.endswith((".up", ".down")))
    return Measured(
        lora=lora,
        quantizers=sum(each.nbytes for each in trained.values()) - lora,
        gradients=gradients,
        moments=moments,
        rounded_weights=rounding.all_bytes,
        activations=kept.all_bytes,
        teacher_macs=teacher // 2,
        all_macs=total // 2,
    )


@pytest.mark.parametrize("line", ["lora", "quantizers", "gradients", "moments", "teacher_macs"])
def test_lines_that_shapes_decide_are_exact(calculated: Cost, measured: Measured, line: str):
    assert getattr(calculated, line) == getattr(measured, line) > 0


@pytest.mark.parametrize("line", ["rounded_weights", "activations"])
def test_what_the_backward_pass_needs_is_as_large(calculated: Cost, measured: Measured, line: str):
    assert getattr(calculated, line) == pytest.approx(getattr(measured, line), rel=0.01)


def test_products_are_as_many(calculated: Cost, measured: Measured):
    assert calculated.macs(again=False) == pytest.approx(measured.all_macs, rel=0.001)


def test_floating_weights_are_held_once(calculated: Cost, calls: tuple[nn.Module, object]):
    assert calculated.floating_weights == sum(each.nbytes for each in calls[0].parameters())


def test_blocks_computed_again_trade_work_for_memory(calculated: Cost):
    assert 0 < calculated.activations_again < calculated.activations
    assert calculated.peak(again=True) < calculated.peak(again=False)
    assert 0 < calculated.again_macs < calculated.forward_macs
    assert calculated.macs(again=True) == calculated.macs(again=False) + calculated.again_macs


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"rank": 6}, "lora"),
        ({"steps": 9}, "quantizers"),
        ({"window": 3}, "activations"),
        ({"window": 3}, "backward_macs"),
    ],
    ids=str,
)
def test_every_setting_costs(
    calls: tuple[nn.Module, tuple[Call, ...]], calculated: Cost, change: dict[str, int], line: str
):
    denoiser, (call, _) = calls
    settings = {"steps": 2, "rank": 3, "window": 2} | change
    other = update_cost(skeleton(denoiser), call.to("meta"), Update(**settings))
    assert getattr(other, line) > getattr(calculated, line)


def test_the_table_has_a_line_for_each_figure(calculated: Cost):
    text = markdown({"tiny": calculated})
    assert f"{calculated.teacher_macs / 1e12:,.1f}" in text
    assert text.count("\n") == 18
