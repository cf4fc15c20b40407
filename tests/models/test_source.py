from pathlib import Path

import pytest

from mezzotint.errors import ModelError, UsageError
from mezzotint.models import list_embedded, resolve, source


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of two embedded pipelines."""
    zoo = tmp_path / "zoo"
    for name in ("emoji-turbo", "emoji-dit"):
        (zoo / name).mkdir(parents=True)
        (zoo / name / "model_index.json").write_text("{}")
    (zoo / "not-a-pipeline").mkdir()
    monkeypatch.setattr(source, "_zoo", lambda: zoo)
    return zoo


def test_embedded_pipelines_are_the_zoos_folders_with_an_index(zoo: Path):
    assert list_embedded() == ("emoji-dit", "emoji-turbo")


def test_a_package_without_zoo_embeds_nothing(zoo: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(source, "_zoo", lambda: zoo / "absent")
    assert list_embedded() == ()


def test_an_embedded_name_resolves_to_its_folder(zoo: Path):
    resolved = resolve("emoji-turbo")
    assert resolved.kind == "embedded"
    assert resolved.folder == zoo / "emoji-turbo"


def test_a_dot_slash_means_the_local_folder_of_an_embedded_name(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(zoo)
    assert resolve("./emoji-turbo").kind == "folder"
    assert resolve(Path("emoji-turbo")).kind == "folder"


def test_a_local_folder_resolves_to_itself(unet_folder: Path):
    resolved = resolve(str(unet_folder))
    assert resolved.kind == "folder"
    assert resolved.folder == unet_folder


def test_owner_slash_name_is_a_hub_id(zoo: Path):
    resolved = resolve("stabilityai/sdxl-turbo")
    assert (resolved.kind, resolved.location) == ("hub", "stabilityai/sdxl-turbo")
    assert resolved.folder is None


def test_a_missing_folder_lists_the_embedded_names(zoo: Path):
    with pytest.raises(
        ModelError, match=r"no such folder; use an embedded.*emoji-dit, emoji-turbo"
    ):
        resolve("/nowhere/at/all")


def test_a_misspelled_name_suggests_the_right_one(zoo: Path):
    with pytest.raises(ModelError, match="did you mean 'emoji-turbo'"):
        resolve("emoji-tubro")


def test_a_path_is_never_taken_for_a_hub_id(zoo: Path):
    with pytest.raises(ModelError, match="no such folder"):
        resolve(Path("runs/owl"))


def test_a_folder_without_index_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match=r"has no model_index\.json"):
        resolve(tmp_path)


def test_a_single_components_folder_is_named_as_such(unet_folder: Path):
    with pytest.raises(ModelError, match="a single model; name the folder of the whole pipeline"):
        resolve(unet_folder / "unet")


def test_a_file_is_refused(unet_folder: Path):
    with pytest.raises(ModelError, match="is a file; name the pipeline's folder"):
        resolve(unet_folder / "model_index.json")


@pytest.mark.parametrize("source", [None, 3, ["emoji-turbo"]], ids=["none", "number", "list"])
def test_what_is_no_path_is_told(source: object):
    kind = type(source).__name__
    with pytest.raises(UsageError, match=f": is a {kind}; name a path, as a str or Path$"):
        resolve(source)
