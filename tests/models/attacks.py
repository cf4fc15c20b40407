"""Folders that try to run code, to unpickle, or to read elsewhere while a model loads."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

WEIGHTS = "diffusion_pytorch_model.safetensors"
TEXT_WEIGHTS = "model.safetensors"

Attack = Callable[[Path, Path], None]
"""Turns the pipeline in a folder into one that makes the marker when it succeeds."""


def edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def module(path: Path, marker: Path, kind: str = "Evil", base: str = "") -> None:
    """A Python file that makes the marker on import, and defines a class."""
    path.write_text(
        f"import diffusers, pathlib\npathlib.Path({str(marker)!r}).touch()\n"
        f"class {kind}({base}): pass\n"
    )


class Bomb:
    """Makes the marker when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def module_called_none(folder: Path, marker: Path) -> None:
    base = "diffusers.StableDiffusionPipeline"
    module(folder / "None.py", marker, "StableDiffusionPipeline", base)


def class_name_of_a_module(folder: Path, marker: Path) -> None:
    module(folder / "evil.py", marker, base="diffusers.StableDiffusionPipeline")
    edit(folder / "model_index.json", _class_name=["evil", "Evil"])


def class_name_without_a_module(folder: Path, marker: Path) -> None:
    """Such a module is looked for among those that can be imported, or on the net."""
    edit(folder / "model_index.json", _class_name=["evil", "Evil"])


def class_name_of_another_kind(folder: Path, marker: Path) -> None:
    edit(folder / "model_index.json", _class_name="AutoencoderKL")


def class_that_loads_other_pipelines(folder: Path, marker: Path) -> None:
    edit(folder / "model_index.json", _class_name="KandinskyV22CombinedPipeline")
    (folder / "README.md").write_text("---\nprior: [owner/evil]\n---\n")


def library_in_the_component(folder: Path, marker: Path) -> None:
    module(folder / "unet" / "evilmod.py", marker, base="diffusers.UNet2DConditionModel")
    edit(folder / "model_index.json", unet=["evilmod", "Evil"])


def known_library_in_the_component(folder: Path, marker: Path) -> None:
    base = "diffusers.UNet2DConditionModel"
    module(folder / "unet" / "diffusers.py", marker, "UNet2DConditionModel", base)


def library_of_python(folder: Path, marker: Path) -> None:
    edit(folder / "model_index.json", unet=["subprocess", "Popen"])


def library_that_is_no_text(folder: Path, marker: Path) -> None:
    edit(folder / "model_index.json", unet=[["diffusers"], "UNet2DConditionModel"])


def component_outside(folder: Path, marker: Path) -> None:
    shutil.copytree(folder / "unet", folder.parent / "outside")
    edit(folder / "model_index.json", **{"../outside": ["diffusers", "UNet2DConditionModel"]})


def class_name_of_a_component(folder: Path, marker: Path) -> None:
    edit(folder / "unet" / "config.json", _class_name=["evilmod", "Evil"])


def class_name_of_a_scheduler(folder: Path, marker: Path) -> None:
    edit(folder / "scheduler" / "scheduler_config.json", _class_name={"evilmod": "Evil"})


def code_of_a_text_encoder(folder: Path, marker: Path) -> None:
    edit(folder / "text_encoder" / "config.json", auto_map={"AutoModel": "evil--evil.Evil"})


def code_of_a_tokenizer(folder: Path, marker: Path) -> None:
    edit(folder / "tokenizer" / "tokenizer_config.json", trust_remote_code=True)


def pipeline_in_a_component(folder: Path, marker: Path) -> None:
    index = json.dumps({"_class_name": ["evil", "Evil"]})
    (folder / "vae" / "model_index.json").write_text(index)


def adapter(folder: Path, marker: Path) -> None:
    text = json.dumps({"base_model_name_or_path": "owner/evil", "peft_type": "LORA"})
    (folder / "text_encoder" / "adapter_config.json").write_text(text)


def pickle_named_by_a_config(folder: Path, marker: Path) -> None:
    edit(folder / "text_encoder" / "config.json", transformers_weights="adapter_model.bin")
    (folder / "text_encoder" / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(marker)))


def shard(component: str, weights: str, name: str) -> Attack:
    """Have an index name `name`, a pickle, for every tensor of a component."""

    def attack(folder: Path, marker: Path) -> None:
        (folder / component / weights).unlink()
        index = {"metadata": {}, "weight_map": {"conv_in.weight": name}}
        (folder / component / f"{weights}.index.json").write_text(json.dumps(index))
        (folder / component / name).write_bytes(pickle.dumps(Bomb(marker)))

    return attack


def pickle_alone(component: str, weights: str, name: str) -> Attack:
    """Put a pickle in the place of a component's weights."""

    def attack(folder: Path, marker: Path) -> None:
        (folder / component / weights).unlink()
        (folder / component / name).write_bytes(pickle.dumps(Bomb(marker)))

    return attack


def shard_outside(folder: Path, marker: Path, prefix: str = "../../") -> None:
    """The weights themselves, but two folders above."""
    shutil.move(folder / "unet" / WEIGHTS, folder.parent / "x.safetensors")
    index = {"metadata": {}, "weight_map": {"conv_in.weight": f"{prefix}x.safetensors"}}
    (folder / "unet" / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


def shard_at_an_absolute_path(folder: Path, marker: Path) -> None:
    shard_outside(folder, marker, f"{folder.parent}/")


def link_to_a_file(folder: Path, marker: Path) -> None:
    shutil.move(folder / "unet" / WEIGHTS, folder.parent / "secret")
    (folder / "unet" / WEIGHTS).symlink_to(folder.parent / "secret")


def link_to_a_folder(folder: Path, marker: Path) -> None:
    shutil.move(folder / "vae", folder.parent / "elsewhere")
    (folder / "vae").symlink_to("../elsewhere")


def link_in_a_circle(folder: Path, marker: Path) -> None:
    (folder / "unet" / WEIGHTS).unlink()
    (folder / "unet" / WEIGHTS).symlink_to(WEIGHTS)


#: Attack → what the error says.
ATTACKS: dict[Attack, str] = {
    module_called_none: r"None\.py: is code",
    class_name_of_a_module: r"model_index\.json: _class_name: is \['evil', 'Evil'\]",
    class_name_without_a_module: r"model_index\.json: _class_name: is \['evil', 'Evil'\]",
    library_in_the_component: r"unet: is \['evilmod', 'Evil'\]",
    known_library_in_the_component: r"unet/diffusers\.py: is code",
    library_of_python: r"unet: is \['subprocess', 'Popen'\]",
    library_that_is_no_text: r"unet: is \[\['diffusers'\], 'UNet2DConditionModel'\]",
    component_outside: r"'\.\./outside': is no name of a component",
    class_name_of_a_component: r"unet/config\.json: _class_name: is \[",
    class_name_of_a_scheduler: r"scheduler_config\.json: _class_name: is \{",
    code_of_a_text_encoder: r"text_encoder/config\.json: auto_map: names code",
    code_of_a_tokenizer: r"tokenizer_config\.json: trust_remote_code: names code",
    pipeline_in_a_component: r"vae/model_index\.json: _class_name: is \[",
    adapter: r"adapter_config\.json: is an adapter's",
    pickle_named_by_a_config: "transformers_weights: 'adapter_model.bin' is not the name",
    shard("unet", WEIGHTS, "w.bin"): "'w.bin' is not the name of a safetensors file",
    shard("vae", WEIGHTS, "w.bin"): "'w.bin' is not the name of a safetensors file",
    shard("text_encoder", TEXT_WEIGHTS, "w.bin"): "'w.bin' is not the name of a safetensors file",
    shard_outside: r"'\.\./\.\./x\.safetensors' is not the name",
    shard_at_an_absolute_path: r"'/.*/x\.safetensors' is not the name",
    link_to_a_file: "is a link to .*/secret, outside",
    link_to_a_folder: "vae: is a link to .*/elsewhere, outside",
    link_in_a_circle: "is a link that leads nowhere",
}

#: Where diffusers makes the pipeline, and not where its denoiser is packed on the disk.
ATTACKS_OF_PIPELINES: dict[Attack, str] = {
    class_name_of_another_kind: "diffusers cannot load it .*'AutoencoderKL' is no pipeline",
    class_that_loads_other_pipelines: "KandinskyV22CombinedPipeline loads other pipelines",
    pickle_alone("unet", WEIGHTS, "diffusion_pytorch_model.bin"): "weights must be safetensors",
    pickle_alone("unet", WEIGHTS, "diffusion_pytorch_model.ckpt"): "weights must be safetensors",
    pickle_alone("vae", WEIGHTS, "diffusion_pytorch_model.bin"): "weights must be safetensors",
    pickle_alone("text_encoder", TEXT_WEIGHTS, "pytorch_model.bin"): "weights must be safetensors",
    pickle_alone("text_encoder", TEXT_WEIGHTS, "pytorch_model.pt"): "weights must be safetensors",
}


def name(attack: Attack) -> str:
    """For the ids of tests."""
    closure = [str(cell.cell_contents) for cell in attack.__closure__ or ()]
    return "-".join([attack.__name__, *closure])
