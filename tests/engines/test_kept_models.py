"""Models that the openvino engine keeps on disk: found by what they are made from, bounded."""

from __future__ import annotations

import copy
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from openvino import opset13
from torch import nn

import mezzotint as mz
from mezzotint._locks import only_here
from mezzotint.engines import engine_executions, engine_named
from mezzotint.engines.openvino import compiling
from mezzotint.engines.openvino.arguments import Arguments, bind
from mezzotint.engines.openvino.call_digest import call_digest
from mezzotint.engines.openvino.kept_models import Facts, ModelStore
from mezzotint.errors import UsageError
from mezzotint.models import find_denoiser
from mezzotint.runtime import packed_layers
from tests.engines.conftest import Case, packed_case


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of kept models, in place of the user's."""
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path))
    monkeypatch.setenv("MEZZOTINT_OPENVINO_CACHE", "1")
    return tmp_path / "openvino"


@pytest.fixture
def never_converts(monkeypatch: pytest.MonkeyPatch):
    """Call it, and whatever is converted after that fails."""

    def refuse(*_: object) -> None:
        raise AssertionError("converted again")

    return lambda: monkeypatch.setattr(compiling, "converted", refuse)


def computed(case: Case, denoiser: nn.Module | None = None) -> tuple[torch.Tensor, tuple]:
    """Output of a denoiser that the engine takes anew, and how its layers were computed."""
    served = engine_named("openvino").attach(denoiser or case.denoiser)
    output = case.call.run(served)
    return output, engine_executions(served)


def arguments(case: Case) -> Arguments:
    return bind(case.denoiser, case.call.args, case.call.kwargs)


def digest(case: Case, denoiser: nn.Module | None = None) -> str | None:
    return call_digest(denoiser or case.denoiser, arguments(case))


def test_a_second_start_converts_nothing_and_computes_the_same(packed, kept, never_converts):
    output, executions = computed(packed)
    (folder,) = kept.iterdir()
    assert sorted(path.suffix for path in folder.iterdir()) == [".bin", ".blob", ".json", ".xml"]
    never_converts()
    again, told = computed(packed, copy.deepcopy(packed.denoiser))
    assert torch.equal(again, output)
    assert told == executions


def test_what_compiling_made_refers_to_the_weights_of_the_graph(unet, kept, never_converts):
    case = packed_case(unet, mz.Choice("int4/channel"))
    output, executions = computed(case)
    (blob,), (weights,) = kept.glob("*/*.blob"), kept.glob("*/model.bin")
    # The tiny model's weights are fewer than the words of its graph.
    assert weights.stat().st_size > 500_000
    assert not _holds(blob, weights)
    never_converts()
    again, told = computed(case)
    assert torch.equal(again, output)
    assert told == executions


def _holds(blob: Path, weights: Path) -> bool:
    """True where a stretch of the weights' middle stands in the blob as well."""
    middle = weights.stat().st_size // 2
    return weights.read_bytes()[middle : middle + 256] in blob.read_bytes()


def test_without_what_compiling_made_the_graph_is_compiled_anew(packed, kept, never_converts):
    output, executions = computed(packed)
    (blob,) = kept.glob("*/*.blob")
    blob.write_bytes(blob.read_bytes()[:100])
    never_converts()
    again, told = computed(packed)
    assert torch.equal(again, output)
    assert told == executions
    assert blob.stat().st_size > 100


def test_a_damaged_model_is_made_anew(packed, kept):
    output, _ = computed(packed)
    (weights,) = kept.glob("*/model.bin")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert torch.equal(computed(packed)[0], output)
    assert weights.read_bytes() == whole


FACTS = {"output": "builtins:tuple", "scales_group_norms": False}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 100_000, id="nested"),
        pytest.param("{}", id="empty"),
        pytest.param({"sizes": {}}, id="another key"),
        pytest.param({"graph_bytes": "1"}, id="a text for a size"),
        pytest.param({"facts": FACTS | {"output": 5}}, id="a number for a type"),
        pytest.param({"facts": FACTS | {"output": ""}}, id="no type"),
        pytest.param({"facts": FACTS | {"output": "antigravity:geohash"}}, id="a foreign module"),
        pytest.param({"facts": FACTS | {"scales_group_norms": "no"}}, id="a word for a flag"),
    ],
)
def test_facts_that_are_none_belong_to_no_model(tmp_path, text):
    nothing = opset13.parameter([1], np.float32)
    store = ModelStore(tmp_path, 10**9)
    store.keep("a", ov.Model([nothing], [nothing]), Facts(**FACTS))
    assert store.find("a").facts == Facts(**FACTS)
    file = tmp_path / "a" / "facts.json"
    if isinstance(text, dict):
        text = json.dumps(json.loads(file.read_text()) | text)
    file.write_text(text)
    assert store.find("a") is None


def test_a_type_that_is_not_there_is_converted_anew(packed, kept):
    output, _ = computed(packed)
    (file,) = kept.glob("*/facts.json")
    stored = json.loads(file.read_text())
    facts = stored["facts"]
    file.write_text(json.dumps(stored | {"facts": facts | {"output": "diffusers.nope:Output"}}))
    assert torch.equal(computed(packed)[0], output)
    assert json.loads(file.read_text())["facts"] == facts


def conversions(monkeypatch) -> list[str]:
    """Grows by a word for each conversion from now on."""
    found, convert = [], compiling.converted

    def counted(*args):
        found.append("converted")
        return convert(*args)

    monkeypatch.setattr(compiling, "converted", counted)
    return found


def test_what_cannot_be_kept_is_converted_once(packed, kept, monkeypatch):
    kept.write_text("a file")
    found = conversions(monkeypatch)
    computed(packed)
    assert found == ["converted"]


def test_an_error_of_compiling_is_told_after_one_conversion(packed, kept, monkeypatch):
    def fail(*_):
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(compiling, "_from_disk", fail)
    found = conversions(monkeypatch)
    with pytest.raises(RuntimeError, match="no such instruction"):
        compiling.compile_denoiser(packed.denoiser, arguments(packed))
    assert found == ["converted"]


def test_it_is_switched_off(packed, kept, monkeypatch):
    monkeypatch.setenv("MEZZOTINT_OPENVINO_CACHE", "0")
    computed(packed)
    assert not kept.exists()


def test_a_bound_that_is_no_number_is_refused(packed, kept, monkeypatch):
    monkeypatch.setenv("MEZZOTINT_OPENVINO_CACHE", "much")
    with pytest.raises(UsageError, match=r"MEZZOTINT_OPENVINO_CACHE: 'much'"):
        computed(packed)


def test_a_place_that_takes_no_files_does_no_harm(packed, kept):
    kept.write_text("a file")
    output, _ = computed(packed)
    assert torch.isfinite(output).all()


def test_while_another_process_writes_it_nobody_waits(packed, kept):
    name = digest(packed)
    assert name is not None
    lock = only_here(kept / name)
    with ThreadPoolExecutor(1) as other:
        other.submit(lock.__enter__).result()
        computed(packed)
        assert not (kept / name).exists()
        other.submit(lock.__exit__, None, None, None).result()
    computed(packed)
    assert (kept / name).is_dir()


def test_models_used_last_longest_ago_make_room(unet, tmp_path):
    model, _ = compiling.converted(unet.denoiser, arguments(unet))
    facts = Facts(output="builtins:tuple", scales_group_norms=False)
    size = 0
    for bound in (10**9, 0):
        store = ModelStore(tmp_path, bound or size * 5 // 2)
        for name in ("a", "b"):
            first = store.keep(name, model, facts)
            assert first is not None
        size = sum(path.stat().st_size for path in first.folder.iterdir())
    assert store.find("a")
    store.keep("c", model, facts)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c"}
    assert ModelStore(tmp_path, size // 2).keep("d", model, facts) is None
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c"}


def test_a_model_that_vanishes_while_it_is_read_is_made_anew(packed, kept, monkeypatch):
    output, _ = computed(packed)

    def vanish(layer: object) -> None:
        shutil.rmtree(kept, ignore_errors=True)

    monkeypatch.setattr(compiling, "give_back", vanish)
    assert torch.equal(computed(packed)[0], output)


def test_equal_copies_have_one_digest(packed, tmp_path):
    folder = mz.Result(packed.pipe, packed.denoiser.hf_quantizer.plan).save(tmp_path / "saved")
    first = digest(packed, find_denoiser(mz.load(folder))[1])
    assert first is not None
    assert digest(packed, find_denoiser(mz.load(folder))[1]) == first


def test_the_order_in_which_a_configuration_lists_defaults_does_not_matter(packed):
    other = copy.deepcopy(packed.denoiser)
    # A list made of a set: each process has another order.
    config = dict(other.config) | {"_use_default_values": ["dropout", "act_fn"]}
    other._internal_dict = type(other.config)(config)
    assert digest(packed, other) == digest(packed)


def changed_code(denoiser: nn.Module) -> None:
    layer = packed_layers(denoiser)["conv_in"]
    next(t for t in layer.state_dict().values() if t.dtype == torch.uint8).view(-1)[0] ^= 1


def changed_norm(denoiser: nn.Module) -> None:
    denoiser.conv_norm_out.weight.data[0] += 1


def changed_attribute(denoiser: nn.Module) -> None:
    denoiser.mid_block.resnets[0].output_scale_factor = 2.0


def changed_processors(denoiser: nn.Module) -> None:
    denoiser.set_attn_processor(AttnProcessor())


@pytest.mark.parametrize(
    "change", [changed_code, changed_norm, changed_attribute, changed_processors]
)
def test_whatever_changes_the_graph_changes_the_digest(packed, change):
    other = copy.deepcopy(packed.denoiser)
    before = digest(packed, other)
    change(other)
    assert before is not None
    assert digest(packed, other) not in (before, None)


def test_other_shapes_have_another_digest(packed):
    other = packed.call.to(dtype=torch.bfloat16)
    bound = bind(packed.denoiser, other.args, other.kwargs)
    assert call_digest(packed.denoiser, bound) != digest(packed)


def test_code_that_a_program_puts_in_while_it_runs_is_not_kept(packed, kept):
    other = copy.deepcopy(packed.denoiser)
    forward = other.conv_act.forward
    other.conv_act.forward = lambda x: forward(x) * 2
    assert digest(packed, other) is None
    output, _ = computed(packed, other)
    assert torch.isfinite(output).all()
    assert not kept.exists()


def test_processors_that_compute_as_stock_ones_do_when_traced_are_those(packed):
    other = copy.deepcopy(packed.denoiser)
    fast = type("Fast", (AttnProcessor2_0,), {"_mezzotint_stock": AttnProcessor2_0})
    other.set_attn_processor(fast())
    assert digest(packed, other) == digest(packed)
    other.set_attn_processor(type("Slow", (AttnProcessor2_0,), {})())
    assert digest(packed, other) is None


def test_hooks_of_inner_layers_are_not_kept(packed):
    other = copy.deepcopy(packed.denoiser)
    other.conv_act.register_forward_hook(lambda *_: None)
    assert digest(packed, other) is None
