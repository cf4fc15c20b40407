"""What is found out before measuring: constant first tokens, split inputs, ranges, groups."""

from pathlib import Path

import pytest
import torch
from diffusers import PixArtSigmaPipeline
from transformers import T5Config, T5EncoderModel

import mezzotint as mz
from mezzotint.formats import MINMAX, MSE, from_bits
from mezzotint.models import Group, text_readers
from mezzotint.recipes import MixdqOptions
from mezzotint.recipes.mixdq.selection import image_error
from mezzotint.runtime import ConstantTokens, SplitInput, pack_layer
from tests.models import tiny


def save_pixart(pipe: PixArtSigmaPipeline, folder: Path) -> None:
    pipe.save_pretrained(folder)
    tiny.write_generation(
        folder, use_resolution_binning=False, clean_caption=False, max_sequence_length=16
    )


def test_shortcuts_of_the_up_blocks_are_split(laboratory):
    with laboratory() as lab:
        assert lab.structure.splits
        assert all(name.startswith("up_blocks.") for name in lab.structure.splits)
        for name, first in lab.structure.splits.items():
            assert 0 < first < lab.job.denoiser.get_submodule(name).in_channels
            assert lab.choice(name, 4, 8).structures == (SplitInput(first),)
            assert len(lab.calibration.input_ranges[name]) == 2


def test_without_shortcut_splitting_there_is_one_range(laboratory):
    with laboratory() as split, laboratory(MixdqOptions(shortcuts="none")) as whole:
        assert not whole.structure.splits
        for name in split.structure.splits:
            assert len(whole.calibration.input_ranges[name]) == 1


def test_the_first_token_of_a_causal_text_encoder_is_constant(laboratory):
    with laboratory() as lab:
        readers = set(text_readers(lab.layers))
        assert set(lab.structure.constants) == readers
        assert not lab.structure.refused
        for name in readers:
            assert lab.choice(name, 4, 8).structures == (ConstantTokens(1),)
            assert "the same for every prompt" in lab.structure.reasons()[name]


def test_the_projection_of_the_text_keeps_its_first_token(laboratory, tmp_path):
    pipe = tiny.tiny_pixart_sigma()
    save_pixart(pipe, tmp_path)
    with laboratory(of=mz.load(tmp_path)) as lab:
        projection = {"caption_projection.linear_1", "caption_projection.linear_2"}
        assert projection < set(lab.structure.constants) == set(text_readers(lab.layers))


def test_constants_are_the_floating_outputs(laboratory):
    with laboratory() as lab:
        name, stored = next(iter(lab.structure.constants.items()))
        outputs = []
        layer = lab.job.denoiser.get_submodule(name)
        hook = layer.register_forward_hook(lambda *seen: outputs.append(seen[2][:, :1]))
        with torch.no_grad():
            lab.calls[0].run(lab.job.denoiser)
        hook.remove()
        constant = from_bits(stored["constant"], torch.float32)
        torch.testing.assert_close(outputs[0][0], constant)


def test_ranges_leave_the_first_token_out(laboratory, pipe):
    with torch.no_grad():  # the first token stands out, as in CLIP
        weights = dict(pipe.text_encoder.named_parameters())
        next(w for name, w in weights.items() if "position" in name)[0, 0] = 1000.0
    with laboratory() as with_bos, laboratory(MixdqOptions(bos=False)) as without:
        assert not without.structure.constants
        for name in with_bos.structure.constants:
            (others,), (everything,) = (
                lab.calibration.input_ranges[name] for lab in (with_bos, without)
            )
            assert others.high < everything.high


def test_a_bidirectional_text_encoder_has_no_constant_token(laboratory, tmp_path):
    pipe = tiny.tiny_pixart_sigma()
    torch.manual_seed(0)
    pipe.text_encoder = T5EncoderModel(
        T5Config(vocab_size=600, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    )
    save_pixart(pipe, tmp_path)
    with laboratory(of=mz.load(tmp_path)) as lab:
        assert not lab.structure.constants
        assert set(lab.structure.refused) == set(text_readers(lab.layers))
        assert "not the same in all prompts" in " ".join(lab.structure.notes)


def test_a_first_word_that_prompts_share_is_no_constant(laboratory, pipe, monkeypatch):
    encode = pipe.encode_prompt  # a pipeline that cuts the first token off, as with a template

    def cut(*args, **kwargs):
        return tuple(None if x is None else x[:, 1:] for x in encode(*args, **kwargs))

    monkeypatch.setattr(pipe, "encode_prompt", cut)
    with laboratory(prompts=("a owl", "a red heart")) as lab:
        assert not lab.structure.constants
        assert "not the same in all prompts" in " ".join(lab.structure.notes)


def test_prompts_that_share_a_word_still_show_a_constant_token(laboratory):
    with laboratory(prompts=("a owl", "a red heart")) as lab:
        assert set(lab.structure.constants) == set(text_readers(lab.layers))


def test_a_constant_layer_is_not_split_as_well(laboratory, monkeypatch):
    with laboratory() as lab:
        name = next(iter(lab.structure.constants))
    monkeypatch.setattr("mezzotint.recipes.structure.split_inputs", lambda *_: {name: 8})
    with laboratory() as lab:
        assert lab.choice(name, 4, 8).structures == (ConstantTokens(1),)
        assert not lab.structure.splits


def test_a_single_prompt_proves_nothing(laboratory):
    with laboratory(prompts=("owl",)) as lab:
        assert not lab.structure.constants
        assert "two different prompts" in " ".join(lab.structure.notes)


def test_patterns_decide_what_is_content(laboratory):
    with laboratory(MixdqOptions(content=("conv_in",))) as lab:
        content = [name for name, group in lab.groups.items() if group is Group.CONTENT]
        assert content == ["conv_in"]


def test_the_range_search_changes_the_packed_weights(laboratory):
    packed = []
    for search in (MINMAX, MSE):
        with laboratory(MixdqOptions(search=search)) as lab:
            layer = lab.job.denoiser.get_submodule("conv_in")
            choice = lab.choice("conv_in", 2, None)
            plan = mz.Plan({"conv_in": choice}, encoding=lab.encoding)
            packed.append(pack_layer("conv_in", layer, plan).dequantized_weight())
    assert not torch.equal(*packed)


def test_candidates_are_compared_on_the_selection_prompts(laboratory):
    errors = []
    for count in (1, 2):
        with laboratory(MixdqOptions(selection_prompts=count)) as lab:
            choices = {layer.name: lab.choice(layer.name, 4, None) for layer in lab.layers}
            errors.append(image_error(lab, choices))
    assert errors[0] != errors[1]


@pytest.mark.parametrize("momentum", [None, 0.5], ids=["extremes", "average"])
def test_momentum_changes_the_static_ranges(laboratory, momentum):
    prompts = ("owl", "heart") * 8  # two batches
    options = MixdqOptions(momentum=momentum)
    with laboratory(prompts=prompts) as usual, laboratory(options, prompts=prompts) as other:
        assert usual.calibration.input_ranges != other.calibration.input_ranges
