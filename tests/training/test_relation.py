"""Time-smoothed relation distillation: what is compared, and that it teaches."""

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from mezzotint.errors import ModelError
from mezzotint.models import Call, find_denoiser
from mezzotint.training import Training, relation
from mezzotint.training.relation import (
    capturing,
    feature_distance,
    output_norm,
    relation_loss,
)
from tests.training.students import EXACT, student_of, window_of


def maps(count: int, seed: int, size: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 8, size, size, generator=generator) for _ in range(count)]


def by_hand(teacher: list[Tensor], student: list[Tensor], temperature: float) -> float:
    """Position by position, in double precision."""
    theirs, ours = (sum(each).double() / len(each) for each in (teacher, student))
    total = 0.0
    for image in range(len(ours)):
        rows = []
        for features in (theirs[image].flatten(1).T, ours[image].flatten(1).T):
            similar = cosine_similarity(features[:, None], features[None], dim=-1)
            rows.append((similar / temperature).softmax(-1))
        total += float((rows[0] * (rows[0] / rows[1]).log()).sum())
    return total


class TestRelationLoss:
    @pytest.mark.parametrize("temperature", [1.0, 0.1])
    @pytest.mark.parametrize("steps", [1, 2, 3])
    def test_it_is_the_divergence_of_relations_of_mean_features(
        self, temperature: float, steps: int
    ):
        teacher, student = maps(steps, 0), maps(steps, 1)
        found = float(relation_loss(teacher, student, temperature))
        assert found == pytest.approx(by_hand(teacher, student, temperature), rel=1e-4)

    def test_equal_features_lose_nothing(self):
        assert float(relation_loss(maps(2, 0), maps(2, 0), 0.1)) == pytest.approx(0, abs=1e-5)

    def test_the_length_of_features_does_not_matter(self):
        teacher, student = maps(1, 0), maps(1, 1)
        longer = [3 * each for each in student]
        assert relation_loss(teacher, longer, 0.1) == pytest.approx(
            float(relation_loss(teacher, student, 0.1)), rel=1e-5
        )

    def test_tokens_are_positions(self):
        teacher, student = maps(1, 0), maps(1, 1)
        tokens = [[each[0].flatten(2).transpose(1, 2)] for each in (teacher, student)]
        assert torch.allclose(relation_loss(*tokens, 0.1), relation_loss(teacher, student, 0.1))

    def test_large_maps_are_compared_in_pieces(self, monkeypatch: pytest.MonkeyPatch):
        teacher, student = maps(1, 0), [each.requires_grad_() for each in maps(1, 1)]
        found = []
        for whole in (relation.WHOLE, 5):
            monkeypatch.setattr(relation, "WHOLE", whole)
            loss = relation_loss(teacher, student, 0.1)
            found.append((loss.detach(), torch.autograd.grad(loss, student)[0]))
        assert torch.allclose(found[0][0], found[1][0])
        assert torch.allclose(found[0][1], found[1][1], atol=1e-6)

    def test_no_gradient_reaches_the_teacher(self):
        teacher, student = ([each.requires_grad_() for each in maps(2, seed)] for seed in (0, 1))
        (relation_loss(teacher, student, 0.1) + feature_distance(teacher, student)).backward()
        assert all(each.grad is None for each in teacher)
        assert all(bool(each.grad.any()) for each in student)


def test_values_of_features_are_compared_by_their_squares():
    teacher, student = maps(2, 0), maps(2, 1)
    expected = ((sum(teacher) - sum(student)) / 2).square().sum()
    assert torch.allclose(feature_distance(teacher, student), expected)


class TestOutputNorm:
    def test_of_a_unet(self, denoiser: nn.Module, calls: tuple[Call, ...]):
        assert output_norm(denoiser, calls[0]) is denoiser.conv_norm_out

    def test_of_a_transformer(self, pixart_pipe: DiffusionPipeline):
        _, transformer = find_denoiser(pixart_pipe)
        text = torch.randn(2, 16, 32)
        call = Call(
            (torch.randn(2, 4, 8, 8),),
            {"encoder_hidden_states": text, "timestep": torch.tensor([9, 9]), "return_dict": False},
        )
        assert output_norm(transformer, call) is transformer.norm_out

    def test_its_input_is_captured_with_both_halves_of_guidance(
        self, denoiser: nn.Module, calls: tuple[Call, ...]
    ):
        norm = output_norm(denoiser, calls[0])
        with capturing(norm) as features:
            calls[0].run(denoiser)
        assert [tuple(each.shape) for each in features] == [(4, 16, 8, 8)]
        calls[0].run(denoiser)
        assert len(features) == 1
        assert not any(module._forward_pre_hooks for module in denoiser.modules())

    def test_without_one_features_cannot_be_compared(self):
        with pytest.raises(ModelError, match="feature_loss='none'"):
            output_norm(nn.Linear(3, 3), Call((torch.ones(1, 3),), {}))


@pytest.mark.parametrize("loss", ["trd", "l2"])
class TestGradient:
    def test_it_reaches_lora_and_scales_and_zero_points(
        self, denoiser: nn.Module, calls: tuple[Call, ...], loss: str
    ):
        options = Training(steps=1, feature_loss=loss, **EXACT)
        student = student_of(denoiser, calls)
        parameters = student.parameters()
        features = window_of(student, calls[:2], options).features()
        found = torch.autograd.grad(features, [*parameters.values()], allow_unused=True)
        reached = {
            name for name, each in zip(parameters, found, strict=True)
            if each is not None and bool(each.any())
        }  # fmt: skip
        layer = "up_blocks.0.resnets.0.conv1."
        for own in ("grids.0.learned.log_scale", "grids.0.learned.zero_point", "weight.lora.up"):
            assert layer + own in reached
        assert {f"{layer}inputs.0.log_scale", f"{layer}inputs.0.zero_point"} <= reached

    def test_features_before_an_update_have_none(
        self, denoiser: nn.Module, calls: tuple[Call, ...], loss: str
    ):
        student = student_of(denoiser, calls)
        window = window_of(student, calls[:2], Training(steps=1, feature_loss=loss, window=3))
        window.learned()
        assert not window.features().requires_grad


def test_the_window_averages_both_steps(denoiser: nn.Module, calls: tuple[Call, ...]):
    student = student_of(denoiser, calls)
    options = Training(steps=1, temperature=0.1, relation_weight=2.0)
    window = window_of(student, calls[:2], options)
    expected = by_hand(window.teacher, [each.detach() for each in window.student], 0.1)
    assert float(window.features().detach()) == pytest.approx(
        2 * expected / window.elements, rel=1e-3
    )
    assert len(window.student) == 2
