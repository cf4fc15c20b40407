"""Denoisers whose weights stay on disk compute, and are probed, as those in memory."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ModelMixin
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

import mezzotint as mz
from mezzotint.calibration import calibrated, input_moments
from mezzotint.checkpoint import read_plan
from mezzotint.checkpoint.streaming.file_weight import FileWeight
from mezzotint.checkpoint.streaming.source_folder import find_source
from mezzotint.checkpoint.streaming.stored_tensors import StoredTensor
from mezzotint.checkpoint.streaming.streamed_denoiser import streamed_denoiser
from mezzotint.errors import CheckpointError, ModelError, UsageError
from mezzotint.measuring import Projections, model_digest
from mezzotint.models import Call, inventory
from mezzotint.plan import Choice, Encoding, Plan
from mezzotint.runtime import module_bytes, packed_copy
from tests.checkpoint import packed
from tests.checkpoint.streaming.float_models import WEIGHTS, stored
from tests.devices import DEVICES
from tests.measuring.probing import call_of, candidates, packed_weights, probed
from tests.models import tiny
from tests.models.tiny import TEXT_WIDTH, tiny_pixart, tiny_unet

FORMATS, INPUTS = ("int3/channel", "lut4/channel"), ("int8/token",)
FEEDBACK = Encoding(rounding="feedback")


def recorded_calls(denoiser: nn.Module) -> tuple[Call, ...]:
    """Two calls of two samples."""
    torch.manual_seed(0)
    return tuple(
        call_of(
            denoiser,
            torch.randn(2, 4, 8, 8),
            timestep=torch.tensor([time, time]),
            encoder_hidden_states=torch.randn(2, 5, TEXT_WIDTH),
        )
        for time in (999, 499)
    )


@dataclass(frozen=True)
class Model:
    """One denoiser, in memory and streamed from the files that it was saved to."""

    loaded: ModelMixin
    streamed: ModelMixin
    calls: tuple[Call, ...]

    @property
    def layers(self) -> list[str]:
        return [layer.name for layer in inventory(self.loaded) if layer.supported]

    @property
    def largest(self) -> int:
        """Bytes of the largest weight among the layers."""
        return max(self.loaded.get_submodule(name).weight.nbytes for name in self.layers)


@pytest.fixture(scope="module", params=[tiny_unet, tiny_pixart], ids=["skips", "transformer"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    loaded = request.param().eval()
    folder = tmp_path_factory.mktemp("streamed")
    loaded.save_pretrained(folder, max_shard_size=module_bytes(loaded) // 3)
    assert len(list(folder.glob("*.safetensors"))) >= 3
    calls = recorded_calls(loaded)
    return Model(loaded, streamed_denoiser(find_source(folder)), calls)


@dataclass
class Reads:
    """Reads of weights on disk, and how much of them was in memory at the same time."""

    shapes: list[tuple[int, ...]] = field(default_factory=list)
    peak: int = 0
    _alive: list[tuple[StorageWeakRef, int]] = field(default_factory=list)

    def add(self, tensor: Tensor) -> None:
        self.shapes.append(tuple(tensor.shape))
        self._alive = [each for each in self._alive if not each[0].expired()]
        self._alive.append((StorageWeakRef(tensor.untyped_storage()), tensor.nbytes))
        self.peak = max(self.peak, sum(size for _, size in self._alive))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    found, read = Reads(), StoredTensor.read

    def watched(stored: StoredTensor) -> Tensor:
        found.add(tensor := read(stored))
        return tensor

    monkeypatch.setattr(StoredTensor, "read", watched)
    return found


@pytest.fixture
def aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors begin as they do in memory: else matrix products add up in another order."""
    read = StoredTensor.read
    monkeypatch.setattr(StoredTensor, "read", lambda stored: read(stored).clone())


def assert_equal(one: Projections, other: Projections) -> None:
    assert np.array_equal(one.energy, other.energy)
    assert np.array_equal(one.residual, other.residual)
    for kind in ("weights", "inputs"):
        own, others = getattr(one, kind), getattr(other, kind)
        assert own.keys() == others.keys()
        for layer, changes in own.items():
            for name, values in changes.items():
                assert np.array_equal(values, others[layer][name]), (layer, name)


class TestComputing:
    def test_outputs_are_those_of_the_model_in_memory(self, model: Model):
        for call in model.calls:
            assert torch.equal(call.run(model.streamed), call.output)

    def test_every_weight_is_read_once_a_call_and_one_is_held(self, model: Model, reads: Reads):
        model.calls[0].run(model.streamed)
        weights = [model.loaded.get_submodule(name).weight for name in model.layers]
        assert sorted(reads.shapes) == sorted(tuple(each.shape) for each in weights)
        assert reads.peak == model.largest

    def test_so_it_is_in_the_backward_pass(self, model: Model, reads: Reads):
        call = model.calls[0].copied()
        latents = call.args[0].requires_grad_()
        model.streamed(latents, **call.kwargs)[0].sum().backward()
        assert latents.grad is not None
        assert len(reads.shapes) > 1.5 * len(model.layers)
        assert reads.peak == model.largest

    def test_tracing_reads_nothing(self, model: Model, reads: Reads):
        assert inventory(model.streamed) == inventory(model.loaded)
        assert module_bytes(model.streamed) == module_bytes(model.loaded)
        assert reads.shapes == []

    def test_the_weights_are_the_same_to_journals(self, model: Model):
        assert model_digest(model.streamed) == model_digest(model.loaded)

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_it_computes_in_another_dtype_than_it_is_stored_in(
        self, tmp_path: Path, stored: torch.dtype, dtype: torch.dtype, device: str
    ):
        tiny_pixart().to(stored).save_pretrained(tmp_path)
        streamed = streamed_denoiser(find_source(tmp_path), dtype, device)
        loaded = type(streamed).from_pretrained(tmp_path, torch_dtype=dtype).to(device)
        found = streamed.state_dict()
        for name, value in loaded.state_dict().items():
            assert (found[name].dtype, found[name].device) == (value.dtype, value.device)
            assert torch.equal(found[name] + 0, value), name
        call = recorded_calls(tiny_pixart())[0].to(device, dtype)
        with torch.no_grad():
            assert torch.equal(call.run(streamed), call.run(loaded))


class TestProbing:
    @pytest.mark.parametrize("checkpointing", [False, True])
    @pytest.mark.usefixtures("aligned")
    def test_projections_are_those_of_the_model_in_memory(self, model: Model, checkpointing: bool):
        asked = candidates(model.layers, FORMATS, INPUTS)
        weight_of = packed_weights(model.loaded)
        expected, found = (
            probed(each, model.calls, asked, 3, weight_of=weight_of, checkpointing=again)
            for each, again in ((model.loaded, False), (model.streamed, checkpointing))
        )
        assert_equal(found, expected)

    @pytest.mark.parametrize("checkpointing", [False, True])
    def test_one_weight_is_in_memory_at_a_time(
        self, model: Model, reads: Reads, checkpointing: bool
    ):
        asked = candidates(model.layers, FORMATS[:1], INPUTS)
        weight_of = packed_weights(model.loaded)
        options = {"weight_of": weight_of, "checkpointing": checkpointing}
        probed(model.streamed, model.calls, asked, 2, **options)
        assert len(reads.shapes) > 2 * 2 * len(model.layers)
        # That of the layer which computes, and where a gradient arrives the same once more.
        assert reads.peak <= 2 * model.largest

    @pytest.mark.usefixtures("aligned")
    def test_around_a_plan_its_weights_are_not_held_either(self, model: Model):
        plan = Plan({name: Choice("int4/channel", "int8/token") for name in model.layers})
        asked = candidates(model.layers, ("int4/channel", "int3/channel"))
        real, decoded = packed_weights(model.loaded), Reads()

        def weight_of(name: str, choice: Choice) -> tuple[Tensor, None]:
            decoded.add(weight := real(name, choice)[0].clone())
            return weight, None

        found = probed(
            model.streamed, model.calls, asked, 2, weight_of=weight_of, plan=plan, cache_bytes=0
        )
        # Where a gradient arrives that of the plan, and the one that it is compared with.
        assert decoded.peak <= 2 * model.largest
        expected = probed(model.loaded, model.calls, asked, 2, weight_of=real, plan=plan)
        assert_equal(found, expected)
        assert np.abs(found.residual).min() > 0

    def test_packed_from_disk_it_is_the_same(self, model: Model):
        plan = Plan({name: Choice("lut3/channel") for name in model.layers}, encoding=FEEDBACK)
        loaded, streamed = (
            packed_copy(each, plan, calibrated(each, plan, model.calls)).state_dict()
            for each in (model.loaded, model.streamed)
        )
        assert packed.same(streamed, loaded)

    def test_gram_matrices_are_gathered_with_one_weight_in_memory(self, model: Model, reads: Reads):
        choices = {name: Choice("int4/channel") for name in model.layers}
        found = input_moments(model.streamed, choices, model.calls, grams=True)
        assert reads.peak == model.largest
        expected = input_moments(model.loaded, choices, model.calls, grams=True)
        for name, parts in expected.items():
            for part, other in zip(parts, found[name], strict=True):
                assert all(map(torch.equal, part.blocks, other.blocks))
                assert torch.equal(part.mean, other.mean)


class TestWeights:
    @pytest.fixture
    def layer(self, model: Model) -> nn.Module:
        return model.streamed.get_submodule(model.layers[0])

    def test_they_are_parameters_without_gradients(self, layer: nn.Module):
        assert isinstance(layer.weight, nn.Parameter)
        assert isinstance(layer.weight, FileWeight)
        assert not layer.weight.requires_grad
        assert "weight" in dict(layer.named_parameters())

    def test_copies_have_the_values(self, model: Model, layer: nn.Module):
        copied = copy.deepcopy(layer)
        assert type(copied.weight) is nn.Parameter
        assert torch.equal(copied.weight, model.loaded.get_submodule(model.layers[0]).weight)

    def test_another_process_reads_the_same_file(self, layer: nn.Module):
        sent = pickle.dumps(layer)
        assert len(sent) < 5000
        assert torch.equal(pickle.loads(sent).weight + 0, layer.weight + 0)

    def test_a_state_that_is_sent_has_the_values(self, layer: nn.Module):
        sent = pickle.loads(pickle.dumps(layer.state_dict()))["weight"]
        assert type(sent) is Tensor
        assert torch.equal(sent, layer.weight + 0)

    def test_they_may_be_moved_to_where_they_are(self, model: Model):
        moved = model.streamed.to("cpu").get_submodule(model.layers[0])
        assert isinstance(moved.weight, FileWeight)

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda layer: layer.to(torch.float64), id="cast"),
            pytest.param(lambda layer: layer.weight.data.zero_(), id="in place"),
            pytest.param(lambda layer: nn.init.zeros_(layer.weight[0]), id="a row"),
        ],
    )
    def test_they_are_read_only(self, layer: nn.Module, change: Callable[[nn.Module], object]):
        with pytest.raises(UsageError, match=r"stays in its file.*load the pipeline without str"):
            change(layer)


class TestFiles:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        tiny_pixart().save_pretrained(tmp_path / "pixart")
        return tmp_path / "pixart"

    def test_one_that_goes_meanwhile_is_named(self, folder: Path):
        streamed = streamed_denoiser(find_source(folder))
        calls = recorded_calls(streamed)
        (folder / WEIGHTS).rename(folder / "elsewhere")
        with pytest.raises(CheckpointError, match=rf"{WEIGHTS}: is missing"):
            calls[0].run(streamed)

    def test_one_that_lacks_a_tensor_is_refused(self, folder: Path):
        packed.rewrite(folder / WEIGHTS, **{"proj_out.weight": None})
        with pytest.raises(CheckpointError, match=r"lacks 1 tensor\(s\): proj_out.weight"):
            streamed_denoiser(find_source(folder))


SMALL = mz.Auto(
    formats=("int3/channel", "lut4/channel"),
    sensitivity="probes",
    probes=4,
    regret=1e9,
    exchanges=False,
    smoothing=False,
    calls=2,
)


class TestPipelines:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Path:
        pipe = tiny.tiny_stable_diffusion()
        pipe.register_modules(unet=tiny.smallest_unet())
        pipe.save_pretrained(tmp_path / "small")
        tiny.write_generation(tmp_path / "small", num_inference_steps=1, guidance_scale=1.0)
        (tmp_path / "small" / "prompts.txt").write_text("owl\nred heart\n")
        return tmp_path / "small"

    def test_quantizing_gives_the_same_bytes(self, small: Path, tmp_path: Path, reads: Reads):
        loaded, streamed = (
            mz.quantize(mz.load(small, stream=stream), SMALL, mz.Budget(4.4)).save(
                tmp_path / str(stream) / "quantized"
            )
            for stream in (False, True)
        )
        largest = max(each.nbytes for each in stored(small / "unet").values())
        # That of the layer which is probed and, where a gradient arrives, the same once more.
        assert 0 < reads.peak <= 2 * largest
        assert len(set(read_plan(streamed).choices.values())) > 1
        assert read_plan(streamed).choices == read_plan(loaded).choices
        weights = Path("unet", WEIGHTS)
        assert (streamed / weights).read_bytes() == (loaded / weights).read_bytes()

    def test_training_is_refused(self, pipeline: Path):
        pipe = mz.load(pipeline, stream=True)
        with pytest.raises(UsageError, match=r"tune_steps|tune_minutes.*load the pipeline without"):
            mz.quantize(pipe, mz.Auto(tune_steps=1))

    def test_other_engines_are_refused(self, pipeline: Path):
        with pytest.raises(UsageError, match="leave it or stream out"):
            mz.load(pipeline, stream=True, engine="openvino")

    def test_quantized_ones_are_refused(self, pipeline: Path, target: Path):
        mz.quantize_checkpoint(pipeline, target)
        with pytest.raises(UsageError, match="is quantized already"):
            mz.load(target, stream=True)

    def test_single_models_are_refused(self, pipeline: Path):
        with pytest.raises(ModelError, match="name the folder of the whole pipeline"):
            mz.load(pipeline / "unet", stream=True)
