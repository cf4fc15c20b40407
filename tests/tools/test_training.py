"""Decoders for latents that stay, and the way back from shipped weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from mezzotint.models import resolve
from tools.emoji import stages, text, vae
from tools.emoji.config import CPU, Diffusion, Schedule
from tools.emoji.data import Corpus
from tools.emoji.denoiser import TextScaled
from tools.emoji.stages import BUILDERS, START, Context
from tools.emoji.start import start

DIFFUSION = Diffusion()


@pytest.fixture
def corpus() -> Corpus:
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    names = ("owl", "red apple", "ship", "key")
    captions = [f"{name}, noto style" for name in names]
    return Corpus(images, captions, np.array([True, True, True, False]))


@pytest.mark.parametrize("stage", ["teacher", "dit"])
def test_unfolding_undoes_folding(stage: str):
    bare = BUILDERS[stage](DIFFUSION)
    before = {name: tensor.clone() for name, tensor in bare.state_dict().items()}
    scaled = TextScaled(bare, DIFFUSION)
    folded = {name: tensor.clone() for name, tensor in scaled.fold().state_dict().items()}
    after = scaled.unfold().denoiser.state_dict()
    assert any(not torch.equal(before[name], folded[name]) for name in before)
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor)


def test_a_decoder_is_trained_for_the_latents_there_are(tmp_path: Path, corpus: Corpus):
    preset = replace(CPU, decoder=Schedule(steps=2, batch=2, lr=1e-2, warmup=1))
    context = Context(corpus, preset, tmp_path)
    given = vae.build(preset)
    given.save_pretrained(context.folder("vae") / "model")
    latents = vae.encode_all(given, corpus, "cpu")
    stages.run_decoder(context)
    found = stages.finished_vae(context)
    for name, tensor in given.encoder.state_dict().items():
        assert torch.equal(found.encoder.state_dict()[name], tensor)
    torch.testing.assert_close(vae.encode_all(found, corpus, "cpu"), latents)
    before = given.decoder.conv_out.weight
    assert not torch.equal(found.decoder.conv_out.weight, before)


def test_a_decoder_for_given_latents_reconstructs_better(tmp_path: Path, corpus: Corpus):
    preset = replace(CPU, decoder=Schedule(steps=12, batch=3, lr=3e-3, warmup=1, ema=0.5))
    model = vae.build(preset)
    rows = torch.from_numpy(corpus.rows(train=True))
    before = vae.peak_signal_to_noise(model, corpus, rows)
    trained = vae.train_decoder(model, corpus, preset, tmp_path)
    assert vae.peak_signal_to_noise(trained, corpus, rows) > before


def test_training_goes_on_from_shipped_weights(tmp_path: Path, corpus: Corpus):
    zoo = Path(str(resolve("emoji-teacher").folder)).parent
    context = Context(corpus, CPU, tmp_path)
    start(context, zoo, {})
    bare = BUILDERS["teacher"](DIFFUSION)
    bare.load_state_dict(load_file(context.folder("teacher") / START))
    folded = stages.wrapped(context, bare).fold().state_dict()
    shipped = UNet2DConditionModel.from_pretrained(zoo / "emoji-teacher" / "unet").state_dict()
    for name, tensor in shipped.items():
        torch.testing.assert_close(folded[name], tensor.float())
    data, _ = stages.latents(context)
    tokenizer = CLIPTokenizer.from_pretrained(zoo / "emoji-teacher" / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(zoo / "emoji-teacher" / "text_encoder").float()
    ids, _ = text.tokenize(tokenizer, [*corpus.captions, ""])
    torch.testing.assert_close(data.text, text.embed(encoder, ids, "cpu"))
