"""Findings before measuring: constant first tokens, split inputs, ranges, groups."""

from pathlib import Path

import pytest
import torch
from diffusers import PixArtSigmaPipeline
from transformers import T5Config, T5EncoderModel

import mezzotint as mz
from mezzotint.formats import MINMAX, MSE, from_bits
from mezzotint.models import LayerGroup, text_readers
from mezzotint.plan import Plan
from mezzotint.recipes import MixDQ
from mezzotint.recipes.mixdq.selection import image_errors
from mezzotint.runtime import ConstantTokens, SplitInput, pack_layer
from tests.models import tiny


def save_pixart(pipe: PixArtSigmaPipeline, folder: Path) -> None:
    pipe.save_pretrained(folder)
    tiny.write_generation(
        folder, use_resolution_binning=False, clean_caption=False, max_sequence_length=16
    )


def test_shortcuts_of_the_up_blocks_are_split(prepare):
    with prepare() as method:
        assert method.study.structures.splits
        assert all(name.startswith("up_blocks.") for name in method.study.structures.splits)
        for name, first in method.study.structures.splits.items():
            assert 0 < first < method.study.job.denoiser.get_submodule(name).in_channels
            assert method.choice(name, 4, 8).structures == (SplitInput(first),)
            assert len(method.calibration.input_ranges[name]) == 2


def test_without_shortcut_splitting_there_is_one_range(prepare):
    with prepare() as split, prepare(MixDQ(shortcuts="none")) as whole:
        assert not whole.study.structures.splits
        for name in split.study.structures.splits:
            assert len(whole.calibration.input_ranges[name]) == 1


def test_the_first_token_of_a_causal_text_encoder_is_constant(prepare):
    with prepare() as method:
        readers = set(text_readers(method.study.layers))
        assert set(method.study.structures.constants) == readers
        assert not method.study.structures.refused
        for name in readers:
            assert method.choice(name, 4, 8).structures == (ConstantTokens(1),)
            assert "the same for every prompt" in method.study.structures.reasons()[name]


def test_the_projection_of_the_text_keeps_its_first_token(prepare, tmp_path):
    pipe = tiny.tiny_pixart_sigma()
    save_pixart(pipe, tmp_path)
    with prepare(of=mz.load(tmp_path)) as method:
        projection = {"caption_projection.linear_1", "caption_projection.linear_2"}
        assert (
            projection
            < set(method.study.structures.constants)
            == set(text_readers(method.study.layers))
        )


def test_constants_are_the_floating_outputs(prepare):
    with prepare() as method:
        name, stored = next(iter(method.study.structures.constants.items()))
        outputs = []
        layer = method.study.job.denoiser.get_submodule(name)
        hook = layer.register_forward_hook(lambda *seen: outputs.append(seen[2][:, :1]))
        with torch.no_grad():
            method.study.calls[0].run(method.study.job.denoiser)
        hook.remove()
        constant = from_bits(stored["constant"], torch.float32)
        torch.testing.assert_close(outputs[0][0], constant)


def test_ranges_leave_the_first_token_out(prepare, pipe):
    with torch.no_grad():  # the first token stands out, as in CLIP
        weights = dict(pipe.text_encoder.named_parameters())
        next(w for name, w in weights.items() if "position" in name)[0, 0] = 1000.0
    with prepare() as with_bos, prepare(MixDQ(bos=False)) as without:
        assert not without.study.structures.constants
        for name in with_bos.study.structures.constants:
            (others,), (everything,) = (
                method.calibration.input_ranges[name] for method in (with_bos, without)
            )
            assert others.high < everything.high


def test_a_bidirectional_text_encoder_has_no_constant_token(prepare, tmp_path):
    pipe = tiny.tiny_pixart_sigma()
    torch.manual_seed(0)
    pipe.text_encoder = T5EncoderModel(
        T5Config(vocab_size=600, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    )
    save_pixart(pipe, tmp_path)
    with prepare(of=mz.load(tmp_path)) as method:
        assert not method.study.structures.constants
        assert set(method.study.structures.refused) == set(text_readers(method.study.layers))
        assert "not the same in all prompts" in " ".join(method.study.structures.notes)


def test_a_first_word_that_prompts_share_is_no_constant(prepare, pipe, monkeypatch):
    encode = pipe.encode_prompt  # a pipeline that cuts the first token off, as with a template

    def cut(*args, **kwargs):
        return tuple(None if x is None else x[:, 1:] for x in encode(*args, **kwargs))

    monkeypatch.setattr(pipe, "encode_prompt", cut)
    with prepare(prompts=("a owl", "a red heart")) as method:
        assert not method.study.structures.constants
        assert "not the same in all prompts" in " ".join(method.study.structures.notes)


def test_prompts_that_share_a_word_still_show_a_constant_token(prepare):
    with prepare(prompts=("a owl", "a red heart")) as method:
        assert set(method.study.structures.constants) == set(text_readers(method.study.layers))


def test_a_constant_layer_is_not_split_as_well(prepare, monkeypatch):
    with prepare() as method:
        name = next(iter(method.study.structures.constants))
    monkeypatch.setattr("mezzotint.recipes.study.split_inputs", lambda *_: {name: 8})
    with prepare() as method:
        assert method.choice(name, 4, 8).structures == (ConstantTokens(1),)
        assert not method.study.structures.splits


def test_a_single_prompt_proves_nothing(prepare):
    with prepare(prompts=("owl",)) as method:
        assert not method.study.structures.constants
        assert "two different prompts" in " ".join(method.study.structures.notes)


def test_patterns_decide_what_is_content(prepare):
    with prepare(MixDQ(content=("conv_in",))) as method:
        content = [name for name, group in method.groups.items() if group is LayerGroup.CONTENT]
        assert content == ["conv_in"]


def test_the_range_search_changes_the_packed_weights(prepare):
    packed = []
    for search in (MINMAX, MSE):
        with prepare(MixDQ(search=search)) as method:
            layer = method.study.job.denoiser.get_submodule("conv_in")
            plan = Plan({"conv_in": method.choice("conv_in", 2, None)}, encoding=method.encoding)
            packed.append(
                pack_layer("conv_in", layer, plan, method.calibration).dequantized_weight()
            )
    assert not torch.equal(*packed)


def test_candidates_are_compared_on_the_selection_prompts(prepare):
    errors = []
    for count in (1, 2):
        with prepare(MixDQ(selection_prompts=count)) as method:
            choices = {
                layer.name: method.choice(layer.name, 4, None) for layer in method.study.layers
            }
            errors.append(image_errors(method, [choices])[0])
    assert errors[0] != errors[1]


@pytest.mark.parametrize("momentum", [None, 0.5], ids=["extremes", "average"])
def test_momentum_changes_the_static_ranges(prepare, momentum):
    prompts = ("owl", "heart") * 8  # two batches
    options = MixDQ(momentum=momentum)
    with prepare(prompts=prompts) as usual, prepare(options, prompts=prompts) as other:
        assert usual.calibration.input_ranges != other.calibration.input_ranges
