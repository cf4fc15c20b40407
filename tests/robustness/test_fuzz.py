"""Damaged files of every kind: refused with an error of ours, or as good as undamaged."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from pathlib import Path

import pytest
from diffusers import UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st

import mezzotint as mz
from mezzotint._digest_file import DigestFile
from mezzotint._journal import Journal, Record
from mezzotint._tensor_digests import stored_places
from mezzotint.allocation.files import read_scores
from mezzotint.checkpoint.verify import verify_checkpoint
from mezzotint.errors import JournalError, MezzotintError, PlanError, UsageError
from mezzotint.models import check_model_folder
from tests.checkpoint import packed
from tests.fuzzing import examples
from tests.robustness.mutations import mutated

WEIGHTS = f"unet/{packed.WEIGHTS}"


@pytest.fixture(scope="module")
def whole(result: mz.Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed pipeline; read only."""
    return result.save(tmp_path_factory.mktemp("fuzz") / "packed")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> mz.Result:
    from tests.models import tiny

    pipe = mz.load(tiny.save_few_step(tmp_path_factory.mktemp("fuzz") / "tiny"))
    return mz.apply(pipe, mz.uniform_plan(pipe.unet, weight_bits=4, act_bits=8))


@pytest.fixture(scope="module")
def copy(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, whose damage each example repairs."""
    return shutil.copytree(whole, tmp_path_factory.mktemp("fuzz") / "copy")


class Damage:
    """A file that is damaged within a block, and whole after it."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path, self.rng = path, random.Random(seed)

    def __enter__(self) -> bool:
        self.before = self.path.read_bytes()
        content = mutated(self.before, self.rng)
        self.path.write_bytes(content)
        return content != self.before

    def __exit__(self, *_: object) -> None:
        self.path.write_bytes(self.before)


HEADER = {"model": "tiny", "seed": 0}
UNITS = {f"layer {index} | int4/channel": {"noise": 0.1 * index} for index in range(8)}

SEEDS = st.integers(0, 2**32 - 1)


class TestCheckpoints:
    @settings(max_examples=4 * settings.default.max_examples)
    @given(seed=SEEDS)
    def test_no_damaged_weights_are_verified(self, copy: Path, seed: int):
        with Damage(copy / WEIGHTS, seed) as changed:
            if not changed:
                return
            try:
                verify_checkpoint(copy)
            except MezzotintError:
                return
            # Blanks in the header, and what else means the same, are no damage.
            digests = json.loads((copy / "unet" / "config.json").read_text())
            assert (
                digests["quantization_config"]["sha256"].keys()
                == stored_places(copy / WEIGHTS).keys()
            )

    @examples(12)
    @given(seed=SEEDS)
    def test_no_damaged_weights_are_loaded(self, copy: Path, result: mz.Result, seed: int):
        with Damage(copy / WEIGHTS, seed):
            try:
                check_model_folder(copy / "unet")
                unet = UNet2DConditionModel.from_pretrained(copy / "unet")
            except MezzotintError:
                return
            assert packed.same(dict(unet.state_dict()), dict(result.denoiser.state_dict()))

    @examples(12)
    @given(seed=SEEDS)
    def test_a_damaged_file_of_a_pipeline(self, copy: Path, seed: int):
        files = sorted(p for p in copy.rglob("*") if p.suffix in (".json", ".safetensors"))
        damage = Damage(random.Random(seed).choice(files), seed)
        with damage, contextlib.suppress(MezzotintError):
            mz.load(copy)

    @given(seed=SEEDS)
    def test_a_damaged_configuration_is_read_or_refused(self, copy: Path, seed: int):
        files = sorted(copy.rglob("*.json"))
        with Damage(random.Random(seed).choice(files), seed):
            try:
                check_model_folder(copy)
                if (copy / DigestFile.FILE).exists():
                    DigestFile.load(copy / DigestFile.FILE)
            except MezzotintError:
                pass

    @pytest.mark.parametrize("seed", range(6))
    def test_swaps_of_equally_shaped_tensors_are_refused(self, copy: Path, seed: int):
        path = copy / WEIGHTS
        places = sorted(stored_places(path).items())
        rng = random.Random(seed)
        pairs = [
            (one, other)
            for index, (_, one) in enumerate(places)
            for _, other in places[index + 1 :]
            if (one.dtype, one.shape) == (other.dtype, other.shape)
        ]
        before = path.read_bytes()
        pair = different(pairs, before, rng)
        left, right = (before[each.start : each.start + each.nbytes] for each in pair)
        damaged = bytearray(before)
        for place, content in zip(pair, (right, left), strict=True):
            damaged[place.start : place.start + place.nbytes] = content
        path.write_bytes(damaged)
        try:
            with pytest.raises(MezzotintError, match=r"2 tensor\(s\) are not those that were"):
                verify_checkpoint(copy)
        finally:
            path.write_bytes(before)


def different(pairs, content: bytes, rng: random.Random):
    """One of the pairs of places, whose contents differ."""
    unlike = [
        (one, other)
        for one, other in pairs
        if content[one.start : one.start + one.nbytes]
        != content[other.start : other.start + other.nbytes]
    ]
    return rng.choice(unlike)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "journal.jsonl"
    Record(HEADER, UNITS).write(path)
    return path


class TestJournals:
    @settings(max_examples=4 * settings.default.max_examples)
    @given(seed=SEEDS)
    def test_no_damaged_figure_is_read(self, journal: Path, seed: int):
        with Damage(journal, seed):
            try:
                with Journal(journal, HEADER) as opened:
                    found = dict(opened.entries)
            except JournalError:
                return
            assert found.items() <= UNITS.items()


def json_values() -> st.SearchStrategy[object]:
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    return st.recursive(
        leaves, lambda each: st.lists(each) | st.dictionaries(st.text(), each), max_leaves=20
    )


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layers = {"conv_in": mz.Choice("int4/channel", "int8/token"), "conv_out": mz.Choice()}
    path = tmp_path_factory.mktemp("fuzz") / "plan.json"
    mz.Plan(layers, model="tiny").save(path)
    return path


class TestDocuments:
    @settings(max_examples=4 * settings.default.max_examples)
    @given(seed=SEEDS)
    def test_a_damaged_plan(self, plan: Path, seed: int):
        with Damage(plan, seed):
            try:
                found = mz.Plan.load(plan)
            except PlanError:
                return
            assert mz.Plan.from_dict(found.to_dict()) == found

    @given(value=json_values())
    def test_any_value_for_a_plan(self, value: object):
        for each in (value, {"version": 3, "layers": value}, {"version": value, "layers": {}}):
            with contextlib.suppress(PlanError):
                mz.Plan.from_dict(each)

    @given(value=json_values())
    def test_any_result_in_a_journal(self, tmp_path_factory, value: object):
        path = tmp_path_factory.mktemp("any") / "journal.jsonl"
        lines = [{"header": {}}, {"unit": "a", "result": value}]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        try:
            found = Record.read(path).entries["a"]
        except JournalError:
            return
        assert json.dumps(found) == json.dumps(value)

    @given(text=st.text() | st.from_regex(r"a: !!(int|float|bool|null|timestamp|set) .{0,5}\n"))
    def test_any_text_for_scores(self, tmp_path_factory, text: str):
        path = tmp_path_factory.mktemp("any") / "scores.yaml"
        path.write_text(text, "utf-8", errors="surrogatepass")
        with contextlib.suppress(UsageError):
            read_scores(path, (4, 8))
