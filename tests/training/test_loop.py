"""The loop: it lowers the loss, is not disturbed, and goes on after a kill as if there was none."""

import copy
import json
import math
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, CpuOffload, add_hook_to_module
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mezzotint.errors import JournalError, TrainingError, UsageError
from mezzotint.models import Call, Sampling, find_denoiser, generate, load_pipeline
from mezzotint.plan import Plan
from mezzotint.runtime import Calibration, packed_copy
from mezzotint.training import Rates, Student, Training, loop, train
from mezzotint.training.fingerprint import fingerprint
from mezzotint.training.states import StateFolder
from mezzotint.training.window import Window
from tests.training.students import (
    BLOCK,
    EXACT,
    IMAGES,
    calibration_of,
    plan_of,
    trajectory_loss,
)


class Killed(BaseException):
    """The end of a process, without its end."""


def options(**fields: object) -> Training:
    return Training(**{"steps": 4, "batch": 2, "rank": 4, **EXACT} | fields)


def begun(
    pipe: DiffusionPipeline, calls: tuple[Call, ...], training: Training, plan: Plan | None = None
) -> Student:
    denoiser = find_denoiser(pipe)[1]
    plan = plan or plan_of(denoiser)
    return Student.of(denoiser, plan, calibration_of(denoiser, plan, calls), training)


def values(student: Student) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in student.parameters().items()}


def equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return all(torch.equal(each, theirs[name]) for name, each in ours.items())


def trained(
    pipe: DiffusionPipeline, calls: tuple[Call, ...], training: Training, **fields: Any
) -> dict[str, Tensor]:
    student = begun(pipe, calls, training)
    train(student, pipe, IMAGES, training, **fields)
    return values(student)


def killing_clock(after: int) -> Callable[[], float]:
    """A clock on which every look takes two minutes, until one ends the process."""
    looks = 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        if looks > after:
            raise Killed
        return 120.0 * looks

    return clock


class TestLearning:
    @pytest.mark.parametrize("train_what", ["lora", "weights", "scales"])
    def test_twenty_updates_lower_the_loss_on_trajectories_that_are_held_out(
        self, pipe: DiffusionPipeline, calls: tuple[Call, ...], train_what: str
    ):
        rates = Rates(lora=0.1, weights=0.1, weight_scale=0.02, input_scale=0.02, floating=0.03)
        training = options(steps=20, train=train_what, rates=rates)
        student = begun(pipe, calls, training)
        before = trajectory_loss(student, pipe)
        curve = train(student, pipe, IMAGES, training)
        assert trajectory_loss(student, pipe) < 0.9 * before
        assert (curve.updates, len(curve.points)) == (20, 2)

    def test_no_updates_change_nothing(self, pipe: DiffusionPipeline, calls: tuple[Call, ...]):
        student = begun(pipe, calls, options(steps=0))
        before = values(student)
        curve = train(student, pipe, IMAGES, options(steps=0))
        assert equal(values(student), before)
        assert curve.updates == 0

    @pytest.mark.parametrize(
        "field",
        [
            {"feature_loss": "none"},
            {"feature_loss": "l2"},
            {"trd_graph": "stop"},
            {"window": 3},
            {"temperature": 1.0},
            {"relation_weight": 30.0},
            {"trajectory": "mixed", "own_share": 1.0},
            {"seed": 1},
            {"batch": 3},
            {"rates": Rates.published()},
        ],
        ids="-".join,
    )
    def test_every_switch_changes_what_is_learned(
        self, pipe: DiffusionPipeline, calls: tuple[Call, ...], field: dict[str, object]
    ):
        usual, other = (trained(pipe, calls, options(**each)) for each in ({}, field))
        assert not equal(usual, other)

    @pytest.mark.parametrize("graph", ["window", "stop"])
    @pytest.mark.parametrize(("size", "expected"), [(2, [2, 1]), (5, [3])], ids=["odd", "short"])
    def test_features_are_compared_to_the_end_of_a_trajectory(
        self,
        pipe: DiffusionPipeline,
        calls: tuple[Call, ...],
        monkeypatch: pytest.MonkeyPatch,
        graph: str,
        size: int,
        expected: list[int],
    ):
        compared, features = [], Window.features

        def noted(self: Window) -> Tensor | None:
            compared.append(self.steps)
            return features(self)

        monkeypatch.setattr(Window, "features", noted)
        updates = 3 if graph == "stop" else len(expected)
        training = options(steps=updates, trd_graph=graph, window=size)
        (point,) = train(begun(pipe, calls, training), pipe, IMAGES, training).points
        assert compared == expected
        assert point.feature_loss > 0

    def test_computing_blocks_again_changes_no_more_than_rounding(
        self, pipe: DiffusionPipeline, calls: tuple[Call, ...]
    ):
        usual, again = (trained(pipe, calls, options(checkpointing=each)) for each in (False, True))
        for name, value in usual.items():
            assert torch.allclose(value, again[name], atol=1e-3), name

    def test_bfloat16_learns_too(self, pipe: DiffusionPipeline, calls: tuple[Call, ...]):
        training = options(autocast=True)
        start = values(begun(pipe, calls, training))
        assert not equal(trained(pipe, calls, training), start)

    @pytest.mark.parametrize(
        ("kind", "where"),
        [("unet_pipe", BLOCK), ("pixart_pipe", ("transformer_blocks.",))],
        ids=["without guidance", "transformer"],
    )
    def test_other_pipelines_learn_as_well(
        self, request: pytest.FixtureRequest, kind: str, where: tuple[str, ...]
    ):
        other = request.getfixturevalue(kind)
        denoiser = find_denoiser(other)[1]
        plan = plan_of(denoiser, "uint2/channel", "int8/token", where=where)
        plan = Plan({n: each for n, each in plan.choices.items() if n.startswith(where)})
        student = Student.of(denoiser, plan, Calibration(), options(steps=3))
        before = values(student)
        assert train(student, other, IMAGES, options(steps=3)).updates == 3
        assert not equal(values(student), before)

    def test_a_denoiser_that_accelerate_has_dispatched_learns_the_same(
        self, pipe: DiffusionPipeline, denoiser: nn.Module, calls: tuple[Call, ...]
    ):
        usual = trained(pipe, calls, options())
        hook = AlignDevicesHook(torch.device("cpu"), io_same_device=True)
        for module in denoiser.modules():
            add_hook_to_module(module, copy.deepcopy(hook))
        assert equal(trained(pipe, calls, options()), usual)
        student = begun(pipe, calls, options())
        packed = packed_copy(denoiser, student.trained_plan, student.calibration())
        assert torch.isfinite(calls[0].run(packed)).all()

    def test_minutes_end_it(self, pipe: DiffusionPipeline, calls: tuple[Call, ...]):
        training = options(steps=None, minutes=30)
        student = begun(pipe, calls, training)
        looks = iter(range(10_000))
        curve = train(student, pipe, IMAGES, training, clock=lambda: 60.0 * next(looks))
        assert curve.minutes >= 25
        assert 2 <= curve.updates <= 15

    def test_the_ratio_of_the_gradients_is_written_down(
        self, pipe: DiffusionPipeline, calls: tuple[Call, ...]
    ):
        student = begun(pipe, calls, options(steps=10))
        (point,) = train(student, pipe, IMAGES, options(steps=10)).points
        assert point.ratio > 0
        assert point.feature_loss > 0


class TestNothingElse:
    def test_an_evaluation_between_two_updates_changes_nothing(
        self, pipe: DiffusionPipeline, calls: tuple[Call, ...], monkeypatch: pytest.MonkeyPatch
    ):
        usual = trained(pipe, calls, options(steps=6))
        student = begun(pipe, calls, options(steps=6))
        update = loop.Loop._update

        def evaluated(self: loop.Loop) -> None:
            update(self)
            inner = pipe.unet.__dict__.pop("forward", None)
            with student.quantized():
                assert generate(pipe, Sampling(("an owl",)), progress=False).any()
            if inner is not None:
                pipe.unet.__dict__["forward"] = inner

        monkeypatch.setattr(loop.Loop, "_update", evaluated)
        scheduler = pipe.scheduler
        train(student, pipe, IMAGES, options(steps=6))
        assert pipe.scheduler is scheduler
        assert equal(values(student), usual)

    def test_the_pipeline_is_left_as_it_was(
        self, pipe: DiffusionPipeline, denoiser: nn.Module, calls: tuple[Call, ...]
    ):
        trained(pipe, calls, options())
        assert torch.equal(calls[0].run(denoiser), calls[0].output)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in denoiser.modules())
        assert all(parameter.grad is None for parameter in denoiser.parameters())
        assert "forward" not in vars(denoiser)


class TestResuming:
    @pytest.mark.parametrize("after", [14, 21])
    @pytest.mark.parametrize(
        "field",
        [{}, {"trd_graph": "stop"}, {"trajectory": "mixed", "own_share": 1.0}],
        ids=["window", "stop", "own trajectory"],
    )
    def test_killed_and_resumed_it_ends_as_if_it_had_not_been(
        self,
        pipe: DiffusionPipeline,
        calls: tuple[Call, ...],
        tmp_path: Path,
        after: int,
        field: dict[str, object],
    ):
        training = options(steps=7, **field)
        uninterrupted = begun(pipe, calls, training)
        expected = train(uninterrupted, pipe, IMAGES, training, tmp_path / "other")
        folder = tmp_path / "training"
        with pytest.raises(Killed):
            trained(pipe, calls, training, folder=folder, clock=killing_clock(after))
        assert (folder / "training.json").is_file()
        begun_with = json.loads((folder / "training.json").read_text())["position"]["updates"]
        assert 0 < begun_with < 7
        resumed = begun(pipe, calls, training)
        curve = train(resumed, pipe, IMAGES, training, folder)
        assert equal(values(resumed), values(uninterrupted))
        assert [p.loss for p in curve.points] == [p.loss for p in expected.points]

    def test_a_failure_after_a_kill_keeps_the_trajectory_under_way(
        self, pipe: DiffusionPipeline, calls: tuple[Call, ...], tmp_path: Path
    ):
        training, folder = options(steps=7), tmp_path / "training"
        expected = trained(pipe, calls, training)
        with pytest.raises(Killed):
            trained(pipe, calls, training, folder=folder, clock=killing_clock(9))
        losses = json.loads((folder / "training.json").read_text())["position"]["losses"]
        assert losses, "killed within a trajectory"
        broken = begun(pipe, calls, training)
        layer = next(iter(broken.layers.values()))
        spoilt = torch.full_like(layer.layer.weight, math.nan)
        layer.rounded_weights = lambda: (spoilt,)
        with pytest.raises(TrainingError):
            train(broken, pipe, IMAGES, training, folder)
        assert equal(trained(pipe, calls, training, folder=folder), expected)

    def test_a_finished_training_is_not_repeated(
        self, pipe: DiffusionPipeline, calls: tuple[Call, ...], tmp_path: Path
    ):
        first = trained(pipe, calls, options(), folder=tmp_path / "training")
        student = begun(pipe, calls, options())
        pipe.scheduler.step = None  # whoever runs the pipeline fails
        assert train(student, pipe, IMAGES, options(), tmp_path / "training").updates == 4
        assert equal(values(student), first)

    @pytest.mark.parametrize(
        ("field", "name"),
        [
            ({"window": 3}, "options.window"),
            ({"rates": Rates(lora=0.5)}, "options.rates.lora"),
            ({"steps": 5}, "options.steps"),
        ],
    )
    def test_other_options_are_named(
        self,
        pipe: DiffusionPipeline,
        calls: tuple[Call, ...],
        tmp_path: Path,
        field: dict[str, object],
        name: str,
    ):
        trained(pipe, calls, options(), folder=tmp_path / "training")
        with pytest.raises(JournalError, match=f"was begun with {name} = "):
            trained(pipe, calls, options(**field), folder=tmp_path / "training")

    def test_other_prompts_are_named(
        self, pipe: DiffusionPipeline, calls: tuple[Call, ...], tmp_path: Path
    ):
        student = begun(pipe, calls, options())
        train(student, pipe, IMAGES, options(), tmp_path / "training")
        student = begun(pipe, calls, options())
        with pytest.raises(JournalError, match="was begun with prompts = "):
            train(student, pipe, IMAGES.part(0, 2), options(), tmp_path / "training")


@pytest.fixture(scope="module")
def interrupted(guided_folder: Path, calls: tuple[Call, ...], tmp_path_factory) -> Path:
    """The folder of a training that was killed within a trajectory; read only."""
    folder = tmp_path_factory.mktemp("interrupted") / "training"
    pipe, clock = load_pipeline(guided_folder), killing_clock(9)
    with pytest.raises(Killed):
        trained(pipe, calls, options(steps=7), folder=folder, clock=clock)
    return folder


class TestDamage:
    @pytest.mark.parametrize(
        ("prefix", "change", "message"),
        [
            ("parameters/", "drop", r"parameters/.* is absent, not of shape \("),
            ("parameters/", "reshape", r"parameters/.* is of shape \(7, 7\), not of shape \("),
            ("optimizer/exp_avg.", "drop", r"optimizer/exp_avg\..* is absent"),
            ("optimizer/exp_avg.", "reshape", r"optimizer/exp_avg\..* is of shape \(7, 7\), not"),
            ("optimizer/exp_avg.", "rename", r"optimizer/\S+ is (absent|unknown)"),
            ("outputs/", "drop", r"1 outputs of 2 denoising steps"),
        ],
    )
    def test_tensors_of_no_such_training_are_named(
        self,
        pipe: DiffusionPipeline,
        calls: tuple[Call, ...],
        interrupted: Path,
        tmp_path: Path,
        prefix: str,
        change: str,
        message: str,
    ):
        folder = Path(shutil.copytree(interrupted, tmp_path / "training"))
        tensors = load_file(folder / "training.safetensors")
        key = min(key for key in tensors if key.startswith(prefix))
        tensor = tensors.pop(key)
        if change == "reshape":
            tensors[key] = torch.zeros(7, 7)
        if change == "rename":
            tensors[f"{key}.else"] = tensor
        save_file(tensors, folder / "training.safetensors")
        record = json.loads((folder / "training.json").read_text())
        record["sha256"] = sha256((folder / "training.safetensors").read_bytes()).hexdigest()
        (folder / "training.json").write_text(json.dumps(record))
        student = begun(pipe, calls, options(steps=7))
        before = values(student)
        with pytest.raises(JournalError, match=rf"safetensors: .*{message}.*; delete the folder"):
            train(student, pipe, IMAGES, options(steps=7), folder)
        assert equal(values(student), before)


class TestLengthOfZero:
    """Nothing is trained; the state of an unfinished training of any length is taken."""

    def test_the_state_of_an_interrupted_training_is_taken(
        self, pipe: DiffusionPipeline, calls: tuple[Call, ...], interrupted: Path, tmp_path: Path
    ):
        folder = Path(shutil.copytree(interrupted, tmp_path / "training"))
        student = begun(pipe, calls, options(steps=0))
        before = values(student)
        pipe.scheduler.step = None  # whoever runs the pipeline fails
        curve = train(student, pipe, IMAGES, options(steps=0), folder)
        assert curve.updates > 0
        assert not equal(values(student), before)
        state = load_file(folder / "training.safetensors")
        assert all(torch.equal(state[f"parameters/{n}"], v) for n, v in values(student).items())

    def test_the_training_can_still_go_on(
        self, pipe: DiffusionPipeline, calls: tuple[Call, ...], interrupted: Path, tmp_path: Path
    ):
        folder = Path(shutil.copytree(interrupted, tmp_path / "training"))
        train(begun(pipe, calls, options(steps=0)), pipe, IMAGES, options(steps=0), folder)
        assert trained(pipe, calls, options(steps=7), folder=folder)
        assert json.loads((folder / "training.json").read_text())["position"]["updates"] == 7

    def test_other_options_are_named_all_the_same(
        self, pipe: DiffusionPipeline, calls: tuple[Call, ...], interrupted: Path
    ):
        other = options(steps=0, temperature=0.5)
        with pytest.raises(JournalError, match=r"was begun with options\.temperature = "):
            train(begun(pipe, calls, other), pipe, IMAGES, other, interrupted)

    def test_after_a_failure_the_last_good_state_is_taken(
        self, pipe: DiffusionPipeline, calls: tuple[Call, ...], tmp_path: Path
    ):
        wild = {"rates": Rates(weight_scale=2.0)}
        fine = plan_of(find_denoiser(pipe)[1], "uint6/channel", "int8/token")
        failed = begun(pipe, calls, options(steps=30, **wild), fine)
        with pytest.raises(TrainingError, match="or pack that state with a length of 0"):
            train(failed, pipe, IMAGES, options(steps=30, **wild), tmp_path / "training")
        none = options(steps=0, **wild)
        student = begun(pipe, calls, none, fine)
        train(student, pipe, IMAGES, none, tmp_path / "training")
        assert equal(values(student), values(failed))

    def test_without_a_state_nothing_is_written(
        self, pipe: DiffusionPipeline, calls: tuple[Call, ...], tmp_path: Path
    ):
        none = options(steps=0)
        assert train(begun(pipe, calls, none), pipe, IMAGES, none, tmp_path / "t").updates == 0
        assert not list(tmp_path.iterdir())


class TestErrors:
    def test_a_denoiser_that_moves_to_run(self, pipe: DiffusionPipeline, calls: tuple[Call, ...]):
        student = begun(pipe, calls, options())
        add_hook_to_module(pipe.unet, CpuOffload(execution_device=torch.device("cuda")))
        with pytest.raises(UsageError, match=r"unet: is moved to cuda whenever it runs"):
            train(student, pipe, IMAGES, options())

    def test_float16_on_a_cpu(self, pipe: DiffusionPipeline, calls: tuple[Call, ...]):
        student = begun(pipe, calls, options())
        student.denoiser.half()
        with pytest.raises(UsageError, match="float16, in which no CPU trains"):
            train(student, pipe, IMAGES, options())

    def test_the_student_of_another_denoiser(
        self, pipe: DiffusionPipeline, calls: tuple[Call, ...], unet_pipe: DiffusionPipeline
    ):
        with pytest.raises(UsageError, match="another denoiser"):
            train(begun(pipe, calls, options()), unet_pipe, IMAGES, options())

    def test_a_folder_of_something_else(
        self, pipe: DiffusionPipeline, calls: tuple[Call, ...], tmp_path: Path
    ):
        (tmp_path / "poem.txt").write_text("")
        with pytest.raises(UsageError, match="holds something else than a training"):
            trained(pipe, calls, options(), folder=tmp_path)

    def test_nan_stops_it_and_names_step_and_layer(
        self, pipe: DiffusionPipeline, calls: tuple[Call, ...], tmp_path: Path
    ):
        student = begun(pipe, calls, options())
        layer = student.layers["up_blocks.0.resnets.0.conv1"]
        whole = layer.rounded_weights
        layer.rounded_weights = lambda: tuple(each * math.nan for each in whole())
        before = values(student)
        with pytest.raises(
            TrainingError, match=r"denoising step 1: .* up_blocks\.0\.resnets\.0\.conv1"
        ):
            train(student, pipe, IMAGES, options(), tmp_path / "training")
        assert equal(values(student), before)

    def test_a_growing_loss_stops_it_and_keeps_the_last_good_state(
        self, pipe: DiffusionPipeline, calls: tuple[Call, ...], tmp_path: Path
    ):
        wild = options(steps=30, rates=Rates(weight_scale=2.0))
        fine = plan_of(find_denoiser(pipe)[1], "uint6/channel", "int8/token")
        student, kept = (begun(pipe, calls, wild, fine) for _ in range(2))
        with pytest.raises(TrainingError, match=r"loss has grown .* while layer \w+"):
            train(student, pipe, IMAGES, wild, tmp_path / "training")
        state = StateFolder(tmp_path / "training", fingerprint(kept, pipe, IMAGES, wild)).load()
        assert equal(values(student), dict(state.parameters))
        assert all(bool(each.isfinite().all()) for each in values(student).values())
