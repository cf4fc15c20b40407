"""Properties that layers of every structure share."""

import copy

import pytest
import torch
from torch import Tensor, nn

from mezzotint.errors import FormatError
from mezzotint.plan import Choice, Plan
from mezzotint.runtime import (
    Calibration,
    dequantize_module,
    empty_layer,
    executions,
    module_bytes,
    pack_layer,
    pack_module,
    packed_layers,
    shape_of,
    stored_tensors,
)
from mezzotint.runtime.layers import Conv2dPart, LinearPart
from tests.runtime.layers import linear
from tests.runtime.structured import (
    BOTH,
    BOTH_LAYER,
    EVERY,
    SPLIT,
    SPLIT_CONV,
    SPLIT_LINEAR,
    TEXT,
    TEXT_LAYER,
    WIDTHS,
    constants,
    packed,
    text,
)


class TestStorage:
    @EVERY
    @pytest.mark.parametrize("weight", [f"uint{width}/group4" for width in WIDTHS])
    @pytest.mark.parametrize("activation", ["float", "uint8/tensor"])
    def test_memory_holds_what_is_stored_and_the_bias(
        self, layer: nn.Module, choice: Choice, x: Tensor, weight: str, activation: str
    ):
        choice = Choice(weight, activation, choice.structures)
        quantized = packed(layer, choice)
        shape = shape_of(layer)
        stored = stored_tensors(choice, shape.weight, shape.groups)
        held = {name: (b.shape, b.dtype) for name, b in quantized.named_buffers()}
        assert held == {name: (spec.shape, spec.dtype) for name, spec in stored.items()}
        assert [name for name, _ in quantized.named_parameters()] == ["bias"]
        total = sum(spec.nbytes for spec in stored.values())
        assert module_bytes(quantized) == total + 4 * len(layer.bias)

    def test_a_constant_costs_its_output_and_its_input(self):
        extra = module_bytes(packed(linear(), TEXT)) - module_bytes(packed(linear(), TEXT.plain))
        assert extra == 4 * 7 + 2 * 19  # and half a float per input, of the token it belongs to

    def test_a_split_costs_a_scale_per_output(self):
        layer = linear(18)
        extra = module_bytes(packed(layer, SPLIT)) - module_bytes(packed(layer, SPLIT.plain))
        assert extra == torch.bfloat16.itemsize * 7

    @EVERY
    def test_the_empty_layer_has_its_place_for_every_tensor(
        self, layer: nn.Module, choice: Choice, x: Tensor
    ):
        quantized, empty = packed(layer, choice), empty_layer("0", layer, choice)
        assert not torch.equal(empty.dequantized_weight(), quantized.dequantized_weight())
        empty.load_state_dict(quantized.state_dict(), strict=True)
        assert torch.equal(empty(x), quantized(x))

    @EVERY
    def test_it_can_stand_on_the_meta_device(self, layer: nn.Module, choice: Choice, x: Tensor):
        hollow = copy.deepcopy(layer).to("meta")
        empty = empty_layer("0", hollow, choice)
        assert empty.state_dict().keys() == packed(layer, choice).state_dict().keys()
        assert all(tensor.is_meta for tensor in empty.state_dict().values())


class TestModuleBehaviour:
    @EVERY
    def test_it_is_one_layer_of_its_model(self, layer: nn.Module, choice: Choice, x: Tensor):
        module = nn.Sequential(packed(layer, choice))
        assert list(packed_layers(module)) == ["0"]
        (told,) = executions(module)
        assert (told.layer, told.choice) == ("0", choice)
        assert told.kernel == module[0].parts[0].selection.kernel.name
        assert str(choice) in repr(module)
        dequantize_module(module)
        assert not packed_layers(module)

    @EVERY
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_casting_leaves_what_is_stored_alone(
        self, layer: nn.Module, choice: Choice, x: Tensor, dtype: torch.dtype
    ):
        quantized = packed(layer, choice)
        before = {name: b.clone() for name, b in quantized.named_buffers()}
        quantized.to(dtype)
        assert quantized.bias.dtype == dtype
        assert all(torch.equal(b, before[name]) for name, b in quantized.named_buffers())
        assert quantized(x.to(dtype)).dtype == dtype

    @EVERY
    def test_a_deep_copy_is_independent_and_equal(
        self, layer: nn.Module, choice: Choice, x: Tensor
    ):
        quantized = packed(layer, choice)
        expected, twin = quantized(x), copy.deepcopy(quantized)
        for buffer in quantized.buffers():
            buffer.zero_()
        assert torch.equal(twin(x), expected)

    @EVERY
    @pytest.mark.parametrize("training", [True, False])
    def test_training_mode_is_kept_both_ways(
        self, layer: nn.Module, choice: Choice, x: Tensor, training: bool
    ):
        quantized = packed(copy.deepcopy(layer).train(training), choice)
        assert quantized.training is training
        assert quantized.to_float().training is training

    @EVERY
    def test_it_compiles_to_one_graph(self, layer: nn.Module, choice: Choice, x: Tensor):
        quantized = packed(layer, choice)
        torch._dynamo.reset()
        compiled = torch.compile(quantized, backend="eager", fullgraph=True)
        assert torch.equal(compiled(x), quantized(x))

    def test_its_parts_are_no_layers_of_torch(self):
        kinds = [
            [type(part) for part in packed(layer, choice).parts]
            for layer, choice, _ in (TEXT_LAYER, SPLIT_LINEAR, SPLIT_CONV, BOTH_LAYER)
        ]
        assert kinds == [[LinearPart], [LinearPart] * 2, [Conv2dPart] * 2, [LinearPart] * 2]
        assert not issubclass(LinearPart, nn.Linear)
        assert not issubclass(Conv2dPart, nn.Conv2d)


class TestPackLayer:
    @pytest.mark.parametrize("choice", [TEXT, SPLIT, BOTH, TEXT.plain], ids=str)
    def test_it_is_what_quantizing_a_model_puts_in(self, choice: Choice):
        plan = Plan({"0": choice})
        calibration = Calibration(tensors={"0": constants(choice, linear())})
        module = pack_module(nn.Sequential(linear()), plan, calibration)
        alone = pack_layer("0", linear(), plan, calibration)
        assert type(alone) is type(module[0])
        x = text(2, 5, 19)
        assert torch.equal(alone(x), module(x))

    def test_the_float_layer_is_left_alone(self):
        layer = linear()
        before = copy.deepcopy(layer.state_dict())
        pack_layer("0", layer, Plan({"0": TEXT.plain})).bias.data.zero_()
        assert all(torch.equal(layer.state_dict()[name], before[name]) for name in before)

    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_a_weight_with_nan_names_the_layer(self, value: float):
        layer = linear()
        layer.weight.data[0, 0] = value
        with pytest.raises(FormatError, match="layer mid: the weight holds NaN or infinite"):
            pack_layer("mid", layer, Plan({"mid": SPLIT}))
