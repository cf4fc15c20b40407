"""Folders that would hang whoever reads them, or lead elsewhere."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from diffusers import DiffusionPipeline
from markdown_it import MarkdownIt

import mezzotint as mz
from mezzotint.checkpoint.save import write_card
from mezzotint.checkpoint.verify import verify_checkpoint
from mezzotint.errors import CheckpointError, ModelError
from mezzotint.models import check_model_folder
from tests.models import tiny


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion; read only."""
    return tiny.save_few_step(tmp_path_factory.mktemp("hostile") / "tiny")


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Path:
    """A copy, for tests that change it."""
    return shutil.copytree(source, tmp_path / "tiny")


def edit(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


class TestWhatNeverEnds:
    @pytest.mark.parametrize(
        "name", ["unet/x.safetensors", "vae/config.json", "unet/weights.bin", "notes.txt"]
    )
    def test_a_pipe_among_the_files(self, folder: Path, tmp_path: Path, name: str):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        for reading in (
            mz.load,
            verify_checkpoint,
            lambda folder: mz.quantize_checkpoint(folder, tmp_path / "out"),
        ):
            with pytest.raises(ModelError, match=f"{folder / name}: is no regular file"):
                reading(folder)

    @pytest.mark.parametrize(
        ("component", "field", "value"),
        [
            ("unet", "layers_per_block", 65_536),
            ("unet", "layers_per_block", [1, 65_536]),
            ("unet", "transformer_layers_per_block", 10**12),
            ("vae", "layers_per_block", 65_536),
            ("text_encoder", "num_hidden_layers", 65_536),
        ],
    )
    def test_more_layers_than_tensors(
        self, folder: Path, tmp_path: Path, component: str, field: str, value: object
    ):
        edit(folder / component / "config.json", **{field: value})
        for reading in (mz.load, lambda folder: mz.quantize_checkpoint(folder, tmp_path / "out")):
            with pytest.raises(ModelError, match=rf"{field}: asks for [\d,]+ layers, but \d+ tens"):
                reading(folder)

    def test_layers_of_a_model_within(self, folder: Path):
        edit(folder / "text_encoder" / "config.json", text_config={"num_hidden_layers": 65_536})
        with pytest.raises(ModelError, match="num_hidden_layers: asks for 65,536"):
            check_model_folder(folder)

    def test_bounds_on_layers_count_none(self, folder: Path):
        edit(folder / "text_encoder" / "config.json", max_window_layers=65_536)
        check_model_folder(folder)

    @pytest.mark.parametrize("name", mz.list_embedded())
    def test_sound_configurations_pass(self, name: str):
        from mezzotint.models import resolve

        check_model_folder(Path(resolve(name).location))

    def test_a_shard_of_a_very_long_name(self, folder: Path):
        index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
        name = f"{'x' * 5_000}.safetensors"
        index.write_text(json.dumps({"metadata": {}, "weight_map": {"conv_in.weight": name}}))
        with pytest.raises(CheckpointError, match=r"weight_map: 'xxx.* is too long"):
            mz.load(folder)


class TestWhatLeadsOutside:
    @pytest.mark.parametrize("name", ["prompts.txt", "LICENSE", "generation.json"])
    def test_is_not_published(self, folder: Path, tmp_path: Path, name: str):
        (tmp_path / "secret").write_text('{"num_inference_steps": 1}')
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(tmp_path / "secret")
        pipe = DiffusionPipeline.from_pretrained(folder)
        result = mz.apply(pipe, mz.uniform_plan(pipe.unet, weight_bits=8))
        assert not (result.save(tmp_path / "out") / name).exists()

    def test_a_link_within_is_followed(self, folder: Path, tmp_path: Path):
        (folder / "notes").write_text("owl\n")
        (folder / "prompts.txt").symlink_to("notes")
        pipe = DiffusionPipeline.from_pretrained(folder)
        result = mz.apply(pipe, mz.uniform_plan(pipe.unet, weight_bits=8))
        assert (result.save(tmp_path / "out") / "prompts.txt").read_text() == "owl\n"


class TestCards:
    @pytest.mark.parametrize(
        "name", ["owl's eyes", "snow_white*2", "a & b", "1 < 2 > 0", 'the "best" #1', "a~b|c\\d"]
    )
    def test_plain_names_are_shown_as_they_are(self, tmp_path: Path, name: str):
        write_card(tmp_path, name, {"unet": mz.Plan({}, model="tiny")})
        text = (tmp_path / "README.md").read_text("utf-8").split("---\n", 2)[2]
        heading = re.search("<h1>(.*)</h1>", MarkdownIt().render(text))
        assert heading is not None
        assert html.unescape(heading[1]) == name

    @pytest.mark.parametrize(
        "name",
        [
            "<script>alert(1)</script>",
            "![x](http://x)",
            "[a](b)",
            "a\n# b",
            'a"\n```\n',
            "\x1b[31m",
        ],
        ids=ascii,
    )
    def test_names_are_text(self, source: Path, tmp_path: Path, name: str):
        pipe = mz.load(source)
        plan = mz.uniform_plan(pipe.unet, weight_bits=8, model=name)
        folder = name.replace("/", "_")
        card = (mz.apply(pipe, plan).save(tmp_path / folder) / "README.md").read_text()
        prose = re.sub(r"```.*?```|`[^`\n]*`", "", card, flags=re.DOTALL)
        for forbidden in ("<script", "](", "\n# b", "\x1b"):
            assert forbidden not in prose
        assert "\x1b" not in card
        assert card.count("```") == 2
        assert card.count("\n# ") == 1
        code = card.partition("```python\n")[2].partition("```")[0]
        assigned = {}
        exec(code.splitlines()[-1].replace("DiffusionPipeline.from_pretrained", "str"), assigned)
        assert assigned["pipe"] == folder
