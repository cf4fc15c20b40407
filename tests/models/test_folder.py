"""A model's folder is data: it can run no code, unpickle nothing and read nowhere else."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mezzotint as mz
from mezzotint.cli import app
from mezzotint.errors import MezzotintError, ModelError
from mezzotint.models import check_folder, components, default_steps, home_of
from tests.models import attacks


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """File that an attack makes if it succeeds."""
    return tmp_path / "attacked"


@pytest.fixture
def folder(unet_folder: Path, tmp_path: Path) -> Path:
    """A copy of the pipeline, in a folder where nothing else stands."""
    return shutil.copytree(unet_folder, tmp_path / "input" / "tiny-turbo")


def load(folder: Path, output: Path) -> None:
    mz.load(folder)


def stream(folder: Path, output: Path) -> None:
    mz.quantize_checkpoint(folder, output)


def command(verb: str):
    def run(folder: Path, output: Path) -> None:
        arguments = [verb, str(folder), "-o", str(output)]
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 2
        assert result.stderr.splitlines()[-1].startswith("error: ")
        raise MezzotintError(result.stderr)

    return run


IN_MEMORY = {"load": load, "quantize": command("quantize")}
ON_DISK = {"stream": stream, "pack": command("pack")}

CASES = [
    pytest.param(attack, message, way, id=f"{attacks.name(attack)}-{label}")
    for found, ways in [
        (attacks.ATTACKS, IN_MEMORY | ON_DISK),
        (attacks.ATTACKS_OF_PIPELINES, IN_MEMORY),
    ]
    for attack, message in found.items()
    for label, way in ways.items()
]


@pytest.mark.parametrize(("attack", "message", "way"), CASES)
def test_an_attack_is_refused_by_name(attack, message, way, folder, marker, tmp_path):
    attack(folder, marker)
    with pytest.raises(MezzotintError, match=message):
        way(folder, tmp_path / "output")
    assert not marker.exists()
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    "attack",
    [
        attacks.class_name_of_a_component,
        attacks.known_library_in_the_component,
        attacks.shard_outside,
        attacks.shard_at_an_absolute_path,
        attacks.link_to_a_file,
        attacks.shard("unet", attacks.WEIGHTS, "w.bin"),
    ],
    ids=attacks.name,
)
def test_an_attack_by_a_single_model_is_refused(attack, folder, marker, tmp_path):
    attack(folder, marker)
    with pytest.raises(MezzotintError, match="unet"):
        mz.quantize_checkpoint(folder / "unet", tmp_path / "output")
    assert not marker.exists()


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "model.ckpt", "model.pt"])
def test_pickles_alone_are_not_packed(name, folder, marker, tmp_path):
    attacks.pickle_alone("unet", attacks.WEIGHTS, name)(folder, marker)
    with pytest.raises(MezzotintError, match="safe_serialization=True"):
        mz.quantize_checkpoint(folder, tmp_path / "output")
    assert not marker.exists()


def test_a_variants_index_is_checked_too(folder: Path):
    index = {"weight_map": {"conv_in.weight": "w.bin"}}
    (folder / "unet" / "model.safetensors.index.fp16.json").write_text(json.dumps(index))
    with pytest.raises(MezzotintError, match=r"fp16\.json: weight_map: 'w\.bin'"):
        check_folder(folder)


def test_pickles_beside_the_weights_are_passed_over(folder: Path, marker: Path):
    text = json.dumps({"weight_map": {"conv_in.weight": "diffusion_pytorch_model.bin"}})
    (folder / "unet" / "diffusion_pytorch_model.bin.index.json").write_text(text)
    path = folder / "unet" / "diffusion_pytorch_model.bin"
    path.write_bytes(pickle.dumps(attacks.Bomb(marker)))
    mz.load(folder)
    assert not marker.exists()


def test_pipelines_of_diffusers_have_components_of_their_own(folder: Path):
    entry = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    attacks.edit(folder / "model_index.json", safety_checker=entry)
    assert components(folder / "model_index.json")["safety_checker"] == tuple(entry)


def test_null_components_and_plain_values_are_none(folder: Path):
    attacks.edit(folder / "model_index.json", safety_checker=[None, None], image_encoder=None)
    assert set(components(folder / "model_index.json")) == {
        *("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    }


def test_denials_of_code_are_no_code(folder: Path):
    path = folder / "text_encoder" / "config.json"
    attacks.edit(path, trust_remote_code=False, auto_map=None)
    check_folder(folder)


def test_links_within_the_folder_are_followed(folder: Path):
    shutil.move(folder / "unet" / attacks.WEIGHTS, folder / "weights.safetensors")
    (folder / "unet" / attacks.WEIGHTS).symlink_to("../weights.safetensors")
    shutil.move(folder / "vae", folder / "autoencoder")
    (folder / "vae").symlink_to("autoencoder")
    mz.load(folder)


def test_a_folder_may_be_reached_by_a_link(folder: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(folder)
    check_folder(tmp_path / "link")


def test_a_link_to_the_folder_itself_ends(folder: Path):
    (folder / "unet" / "again").symlink_to("..")
    check_folder(folder)


class TestTheHubsCache:
    """Files of a cached repository are links into a folder beside it."""

    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    @pytest.fixture
    def snapshot(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        cache = tmp_path / "hub"
        repository = cache / "models--owner--tiny"
        snapshot = repository / "snapshots" / self.COMMIT
        (repository / "blobs").mkdir(parents=True)
        for number, path in enumerate(each for each in folder.rglob("*") if each.is_file()):
            blob = repository / "blobs" / f"{number:040x}"
            shutil.move(path, blob)
            link = snapshot / path.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            up = "../" * len(link.relative_to(repository).parent.parts)
            link.symlink_to(f"{up}blobs/{blob.name}")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(self.COMMIT)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        return snapshot

    def test_a_cached_pipeline_loads_by_its_name(self, snapshot: Path):
        assert mz.load("owner/tiny").name_or_path == "owner/tiny"

    def test_another_revision_is_asked_for_by_its_name(self, snapshot: Path):
        references = snapshot.parents[1] / "refs"
        (references / "main").rename(references / "v1")
        assert home_of(mz.load("owner/tiny", revision="v1")) == snapshot
        with pytest.raises(ModelError, match="cannot be downloaded"):
            mz.load("owner/tiny")

    def test_files_of_another_variant_are_asked_for_by_its_name(self, snapshot: Path):
        for weights in snapshot.glob("*/*.safetensors"):
            weights.rename(weights.with_suffix(".fp16.safetensors"))
        mz.load("owner/tiny", variant="fp16")
        with pytest.raises(ModelError, match="diffusers cannot load it"):
            mz.load("owner/tiny")

    def test_its_defaults_are_those_of_the_call(self, snapshot: Path):
        (snapshot / "generation.json").write_text('{"num_inference_steps": 3}')
        assert default_steps(mz.load("owner/tiny")) == 3

    def test_a_token_is_shown_to_the_hub_alone(self, monkeypatch: pytest.MonkeyPatch):
        seen = {}

        def refused(*_: object, **access: object) -> None:
            seen.update(access)
            raise OSError("refused")

        monkeypatch.setattr("mezzotint.models.loading.hf_hub_download", refused)
        with pytest.raises(ModelError, match=r"cannot be downloaded \(refused\)") as caught:
            mz.load("owner/tiny", token="hf_secret", revision="v1")
        assert seen == {"token": "hf_secret", "revision": "v1"}
        assert "hf_secret" not in str(caught.value)

    def test_a_cached_pipeline_is_packed_by_its_name(self, snapshot: Path, tmp_path: Path):
        written = mz.quantize_checkpoint("owner/tiny", tmp_path / "output")
        assert written.plan.model == "tiny"

    def test_a_cached_folder_loads_wherever_the_cache_stands(
        self, snapshot: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nowhere")
        check_folder(snapshot)
        mz.load(snapshot)

    def test_a_folder_may_link_into_the_cache(self, snapshot: Path, tmp_path: Path):
        mine = shutil.copytree(snapshot, tmp_path / "mine")  # copies what links lead to
        (mine / "unet" / attacks.WEIGHTS).unlink()
        (mine / "unet" / attacks.WEIGHTS).symlink_to(snapshot / "unet" / attacks.WEIGHTS)
        check_folder(mine)

    def test_an_attack_from_the_hub_is_refused(self, snapshot: Path):
        attacks.edit(snapshot / "model_index.json", _class_name=["evil", "Evil"])
        with pytest.raises(MezzotintError, match="_class_name: is"):
            mz.load("owner/tiny")

    def test_a_cached_file_that_links_on_is_refused(self, snapshot: Path, tmp_path: Path):
        blob = (snapshot / "unet" / attacks.WEIGHTS).resolve()
        shutil.move(blob, tmp_path / "secret")
        blob.symlink_to(tmp_path / "secret")
        with pytest.raises(MezzotintError, match="outside the model's folder"):
            mz.load(snapshot)
