"""Adapters over packed layers, through diffusers and peft."""

import copy
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from torch import Tensor

import mezzotint as mz
from mezzotint.errors import UsageError
from mezzotint.runtime import packed_layers
from tests.checkpoint import packed
from tests.models import tiny

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "conv1", "conv_shortcut"]


def config(seed: int = 0) -> LoraConfig:
    """An adapter that changes the output: neither of its factors is zero."""
    torch.manual_seed(seed)
    return LoraConfig(r=4, lora_alpha=4, target_modules=TARGETS, init_lora_weights=False)


def adapted(model: UNet2DConditionModel) -> list[str]:
    return [name for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)]


@pytest.fixture
def model() -> UNet2DConditionModel:
    return packed.structured_unet()


@pytest.fixture
def plain(model: UNet2DConditionModel) -> Tensor:
    """Its output without any adapter."""
    return packed.run(model)


@pytest.fixture
def pipe(saved: Path):
    """A packed pipeline."""
    return mz.load(saved)


@pytest.fixture(scope="session")
def adapter_file(float_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of the floating pipeline, in the file that diffusers shares."""
    folder = tmp_path_factory.mktemp("lora")
    pipe = mz.load(float_folder)
    pipe.unet.add_adapter(config(), "style")
    layers = get_peft_model_state_dict(pipe.unet, adapter_name="style")
    type(pipe).save_lora_weights(folder, unet_lora_layers=layers)
    return folder


class TestAddAdapter:
    def test_it_wraps_packed_layers_of_every_structure(self, model: UNet2DConditionModel):
        model.add_adapter(config())
        names = {type(model.get_submodule(n).get_base_layer()).__name__ for n in adapted(model)}
        assert len(names) == 4, "linear and convolution, with and without structure"

    def test_it_adds_its_branch_to_the_output(self, model: UNet2DConditionModel, plain: Tensor):
        model.add_adapter(config())
        assert not torch.allclose(packed.run(model), plain)

    def test_the_branch_is_the_one_it_adds_to_the_dequantized_model(
        self, model: UNet2DConditionModel
    ):
        layer = model.down_blocks[1].resnets[0].conv1
        x = torch.randn(1, layer.in_channels, 8, 8, generator=torch.Generator().manual_seed(1))
        before = layer(x)
        model.add_adapter(config())
        wrapped = model.down_blocks[1].resnets[0].conv1
        branch = (
            wrapped.lora_B["default"](wrapped.lora_A["default"](x)) * wrapped.scaling["default"]
        )
        torch.testing.assert_close(wrapped(x), before + branch)

    def test_it_keeps_the_packed_weights(self, model: UNet2DConditionModel):
        before = packed.integers(model)
        model.add_adapter(config())
        after = {n.replace("base_layer.", ""): t for n, t in packed.integers(model).items()}
        assert packed.same(before, after)

    def test_disabled_it_changes_nothing(self, model: UNet2DConditionModel, plain: Tensor):
        model.add_adapter(config())
        model.disable_adapters()
        assert torch.equal(packed.run(model), plain)

    @pytest.mark.parametrize("targets", ["all-linear", ["others"], ["first", "second"]], ids=str)
    def test_the_parts_of_a_structured_layer_are_no_layers(
        self, model: UNet2DConditionModel, targets: list[str] | str, plain: Tensor
    ):
        settings = LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
        if targets == "all-linear":
            inject_adapter_in_model(settings, model)
            assert packed.run(model).isfinite().all()
            assert not torch.allclose(packed.run(model), plain)
        else:
            with pytest.raises((UserWarning, ValueError), match=r"[Uu]nsupported|not supported"):
                model.add_adapter(settings)

    def test_a_model_with_an_adapter_is_not_saved(self, pipe, adapter_file: Path, tmp_path: Path):
        pipe.load_lora_weights(adapter_file)
        with pytest.raises(
            UsageError, match=r"has an adapter loaded; call unload_lora_weights\(\)"
        ):
            pipe.unet.save_pretrained(tmp_path / "unet")
        with pytest.raises(UsageError, match="has an adapter loaded"):
            mz.Result(pipe, pipe.unet.hf_quantizer.plan).save(tmp_path / "pipe")
        assert not (tmp_path / "pipe").exists()
        pipe.unload_lora_weights()
        pipe.unet.save_pretrained(tmp_path / "unet")


class TestState:
    """diffusers looks for shapes of dense weights in the state before it loads some adapters."""

    def test_weights_of_packed_layers_are_found_by_name(self, model: UNet2DConditionModel):
        state = model.state_dict()
        assert "conv_in.weight" not in state
        assert state["conv_in.weight"].shape == model.conv_in.weight.shape

    def test_so_are_those_that_an_adapter_is_wrapped_around(self, model: UNet2DConditionModel):
        model.add_adapter(config())
        name = adapted(model)[0]
        assert model.state_dict()[f"{name}.weight"].shape == model.get_submodule(name).weight.shape

    @pytest.mark.parametrize("name", ["conv_in.codes", "conv_in", "nothing.weight"])
    def test_nothing_else_is(self, model: UNet2DConditionModel, name: str):
        with pytest.raises(KeyError, match=name):
            model.state_dict()[name]

    def test_copies_are_of_the_stored_tensors_alone(
        self, model: UNet2DConditionModel, tmp_path: Path
    ):
        state = model.state_dict()
        torch.save(state, tmp_path / "state")
        for other in (state.copy(), copy.deepcopy(state), torch.load(tmp_path / "state")):
            assert type(other) is OrderedDict
            assert packed.same(dict(other), dict(state))


class TestPipeline:
    def test_a_shared_file_loads_and_unloads(self, pipe, adapter_file: Path):
        plain = packed.run(pipe.unet)
        pipe.load_lora_weights(adapter_file)
        assert not torch.allclose(packed.run(pipe.unet), plain)
        pipe.unload_lora_weights()
        assert not adapted(pipe.unet)
        assert torch.equal(packed.run(pipe.unet), plain)

    @pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
    def test_several_adapters_have_weights(self, pipe, adapter_file: Path):
        plain = packed.run(pipe.unet)
        pipe.load_lora_weights(adapter_file, adapter_name="one")
        pipe.load_lora_weights(adapter_file, adapter_name="two")
        pipe.set_adapters(["one", "two"], [1.0, -1.0])
        torch.testing.assert_close(packed.run(pipe.unet), plain, rtol=1e-4, atol=1e-4)
        pipe.set_adapters(["one", "two"], [0.5, 0.5])
        half = packed.run(pipe.unet)
        pipe.set_adapters(["one"], [1.0])
        torch.testing.assert_close(packed.run(pipe.unet), half, rtol=1e-4, atol=1e-4)

    def test_disabled_it_changes_nothing(self, pipe, adapter_file: Path):
        plain = packed.run(pipe.unet)
        pipe.load_lora_weights(adapter_file)
        pipe.disable_lora()
        assert torch.equal(packed.run(pipe.unet), plain)

    def test_fusing_is_refused_before_any_layer_is_fused(self, pipe, adapter_file: Path):
        pipe.load_lora_weights(adapter_file)
        with pytest.raises(UsageError, match=r"fuse_lora: .* packed.*quantize the result"):
            pipe.fuse_lora()
        layers = [pipe.unet.get_submodule(name) for name in adapted(pipe.unet)]
        assert not any(layer.merged for layer in layers)

    def test_one_layer_is_not_fused_either(self, pipe, adapter_file: Path):
        pipe.load_lora_weights(adapter_file)
        layer = pipe.unet.get_submodule(adapted(pipe.unet)[0])
        for safe in (False, True):
            with pytest.raises(UsageError, match="packed"):
                layer.merge(safe_merge=safe)


# Random embeddings have another first token than the one that was calibrated.
@pytest.mark.filterwarnings("ignore::mezzotint.errors.CalibrationWarning")
def test_an_adapter_over_packed_layers_is_trained(model: UNet2DConditionModel):
    model.add_adapter(config())
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    latent, text = torch.randn(1, 4, 8, 8), torch.randn(1, 5, tiny.TEXT_WIDTH)
    losses = []
    for _ in range(4):
        y = model(latent, torch.tensor(500), text, return_dict=False)[0]
        loss = y.square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused, not unloaded"])
def test_a_loaded_adapter_is_refused_before_anything_is_measured(
    float_folder: Path, adapter_file: Path, tmp_path: Path, fused: bool
):
    pipe = mz.load(float_folder)
    pipe.load_lora_weights(adapter_file)
    if fused:
        pipe.fuse_lora()
    with pytest.raises(UsageError, match=r"has an adapter loaded; .*unload_lora_weights\(\)"):
        mz.quantize(pipe, journal=tmp_path / "journal")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="has an adapter loaded"):
        mz.apply(pipe, mz.uniform_plan(pipe.unet, weight_bits=4))


def test_an_adapter_of_a_bare_module_is_refused_before_anything_runs(
    float_folder: Path, tmp_path: Path
):
    unet = mz.load(float_folder).unet
    unet.add_adapter(config())
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    unet.register_forward_pre_hook(lambda module, args: pytest.fail("was run"))
    calls = [((torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 4, 8)), {})]
    with pytest.raises(UsageError, match=r"UNet2DConditionModel: layer .* has an adapter loaded"):
        mz.quantize_module(unet, calls, journal=tmp_path / "journal")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match=r"UNet2DConditionModel: layer .* has an adapter loaded"):
        mz.quantize_denoiser(unet)
    assert not packed_layers(unet)
    after = unet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_an_adapter_that_is_fused_and_unloaded_is_quantized(float_folder: Path, adapter_file: Path):
    pipe = mz.load(float_folder)
    before = packed.run(pipe.unet)
    pipe.load_lora_weights(adapter_file)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    result = mz.apply(pipe, mz.uniform_plan(pipe.unet, weight_bits=8))
    assert packed_layers(result.denoiser)
    assert not torch.allclose(packed.run(result.denoiser), before)


def test_an_adapter_is_computed_under_a_compiler(model: UNet2DConditionModel):
    layer = model.mid_block.attentions[0].transformer_blocks[0].attn1
    model.add_adapter(config())
    x = torch.randn(1, 4, layer.to_q.in_features, generator=torch.Generator().manual_seed(1))
    torch.compiler.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_an_adapter_is_trained_under_a_compiler(model: UNet2DConditionModel, kind: str):
    model.add_adapter(config())
    if kind == "linear":
        layer = model.mid_block.attentions[0].transformer_blocks[0].attn1.to_q
        shape = (1, 4, layer.in_features)
    else:
        layer = model.down_blocks[1].resnets[0].conv1
        shape = (1, layer.base_layer.in_channels, 8, 8)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), requires_grad=True)
    trained = [x, layer.lora_A["default"].weight, layer.lora_B["default"].weight]
    torch.compiler.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    found, expected = (
        torch.autograd.grad(each(x).square().mean(), trained) for each in (compiled, layer)
    )
    assert all(float(gradient.abs().max()) > 0 for gradient in expected)
    torch.testing.assert_close(found, expected)
