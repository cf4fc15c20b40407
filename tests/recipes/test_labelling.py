"""Labels of a tiny pipeline: measured, journaled, resumed, read, and refused where they differ."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from torch import nn

import mezzotint as mz
from mezzotint._journal import Journal, Record
from mezzotint._locks import only_here
from mezzotint.bank import Bank
from mezzotint.errors import BankError, CalibrationError, LabelError, ModelError, UsageError
from mezzotint.labels import Configuration, ConfigurationChange, Labels
from mezzotint.measuring import InProcess, Noise, Original, PlanChange, Task, measure
from mezzotint.recipes.label_options import SampleOptions
from mezzotint.recipes.labelling import sample_labels
from mezzotint.runtime import Calibration, encoded
from tests import journals
from tests.labels import user_metrics
from tests.labels.user_metrics import ABSOLUTE
from tests.recipes.labelled_pipeline import FEW, FORMATS, save_smallest

IMAGES = replace(FEW, metric=ABSOLUTE, images=2)


@pytest.fixture(scope="session")
def smallest_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    return save_smallest(tmp_path_factory.mktemp("labelling") / "tiny")


@pytest.fixture
def pipe(smallest_folder: Path) -> DiffusionPipeline:
    return mz.load(smallest_folder)


@pytest.fixture(scope="session")
def finished(smallest_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four labels by noise; read only."""
    folder = tmp_path_factory.mktemp("labels") / "noise"
    sample_labels(mz.load(smallest_folder), folder, FEW)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """The same labels, to be changed; the bank is linked."""
    copied = tmp_path / "labels"
    copied.mkdir()
    for name in ("labels.json", "labels.jsonl", "graph.json"):
        (copied / name).write_bytes((finished / name).read_bytes())
    (copied / "bank").symlink_to(finished / "bank")
    return copied


@dataclass
class Counting:
    """An executor that counts its tasks, and may be killed after some."""

    last: int | None = None

    def __post_init__(self) -> None:
        self.tasks: list[str] = []

    def __call__(self, original: Original) -> Counting:
        self.inner = InProcess(original)
        return self

    def figures(self, tasks: Sequence[Task]):
        for found in self.inner.figures(tasks):
            if len(self.tasks) == self.last:
                raise KeyboardInterrupt
            self.tasks.append(found[0].change.name)
            yield found


class TestSampling:
    def test_a_folder_holds_bank_graph_header_and_journal(self, finished: Path):
        names = {path.name for path in finished.iterdir() if not path.name.startswith(".")}
        assert names == {"bank", "graph.json", "labels.json", "labels.jsonl"}
        assert len(Record.read(finished / "labels.jsonl").entries) == 1 + 4

    def test_labels_are_those_of_packing_each_plan(self, finished: Path, pipe: DiffusionPipeline):
        labels, bank = Labels.read(finished), Bank.open(finished / "bank")
        few = mz.Sampling(("owl", "red apple"))
        original = Original(pipe.unet.eval(), mz.record_calls(pipe, few))
        for index in range(len(labels)):
            plan = bank.plan(labels.configuration(index))
            ((_, figures),) = InProcess(original).figures([Task(PlanChange(plan), Noise())])
            assert figures["noise"] == pytest.approx(labels.values[index], rel=1e-9)
            assert labels.errors_of_values[index] > 0

    def test_nothing_is_encoded_but_for_the_bank(
        self, pipe: DiffusionPipeline, folder: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(encoded, "encoded_part", None)
        assert len(sample_labels(pipe, folder, replace(FEW, count=5))) == 5

    def test_halves_of_joined_inputs_are_weights_of_their_own(self, finished: Path):
        labels = Labels.read(finished)
        halves = [key for key in labels.keys if "/" in key]
        assert [key.rpartition("/")[2] for key in halves] == ["first", "second"] * (
            len(halves) // 2
        )
        places = [labels.keys.index(key) for key in halves]
        drawn = labels.configurations[:, places]
        assert (drawn[:, 0::2] != drawn[:, 1::2]).any()

    def test_arrays_are_those_of_graph_and_bank(self, finished: Path):
        labels, bank = Labels.read(finished), Bank.open(finished / "bank")
        nodes = [node for node in labels.graph.weights if node.quantizable]
        assert labels.keys == tuple(node.key for node in nodes)
        assert labels.weights.tolist() == [node.weights for node in nodes]
        assert labels.formats == FORMATS
        shape = (len(nodes), len(FORMATS))
        assert (labels.bytes.shape, labels.weight_errors.shape) == (shape, shape)
        assert labels.bytes.dtype == labels.configurations.dtype == np.int64
        assert labels.bytes[3, 1] == bank.stored_bytes(labels.keys[3], FORMATS[1])
        assert labels.weight_errors[3, 1] == bank.error(labels.keys[3], FORMATS[1])
        stored = sum(bank.stored_bytes(key, name) for key, name in labels.configuration(0).items())
        assert labels.bits[0] == pytest.approx(stored * 8 / labels.weights.sum())

    def test_the_floor_is_that_of_the_floating_model(self, finished: Path):
        labels = Labels.read(finished)
        assert labels.floor == 0
        assert (labels.values > 0).all()
        assert labels.context["metric"] == "noise"

    def test_images_are_of_seed_plus_i_and_the_same_for_every_configuration(
        self, pipe: DiffusionPipeline, tmp_path: Path
    ):
        options = replace(IMAGES, images=3, seed=7, count=2)
        labels = sample_labels(pipe, tmp_path / "labels", options)
        sampling = mz.Sampling(("owl", "red apple", "owl"), seed=7)
        before = Original(pipe.unet.eval(), pipe=pipe, sampling=sampling)
        bank = Bank.open(tmp_path / "labels" / "bank")
        switched = bank.switched(pipe.unet)
        for index in range(2):
            denoiser = switched.take(labels.configuration(index))
            with torch.no_grad():
                images = torch.cat(list(before.batches(denoiser)))
            expected = user_metrics.absolute(before.images.images, images).mean()
            assert labels.values[index] == pytest.approx(float(expected), rel=1e-6)

    def test_paired_is_the_default(self, pipe: DiffusionPipeline, tmp_path: Path):
        options = replace(FEW, count=2, metric=SampleOptions().metric)
        labels = sample_labels(pipe, tmp_path / "labels", options)
        header = json.loads((tmp_path / "labels" / "labels.json").read_text())
        assert (header["metric"], header["images"]) == ("paired", 2)
        assert (labels.values > labels.floor).all()
        assert SampleOptions().measure.prompts == 64

    def test_rounding_with_feedback_makes_other_labels(
        self, pipe: DiffusionPipeline, finished: Path, tmp_path: Path
    ):
        options = replace(FEW, rounding="feedback")
        labels, plain = sample_labels(pipe, tmp_path / "labels", options), Labels.read(finished)
        assert Bank.open(tmp_path / "labels" / "bank").rounding == "feedback"
        assert (labels.configurations == plain.configurations).all()
        assert (labels.values < plain.values).all()
        assert (labels.weight_errors.sum(0) > plain.weight_errors.sum(0)).all()

    def test_stored_bits_are_spread(self, pipe: DiffusionPipeline, folder: Path):
        plain = Labels.read(folder)
        both = sample_labels(pipe, folder, replace(FEW, stratify=True, count=6))
        assert np.ptp(both.bits[len(plain) :]) > 2 * np.ptp(plain.bits)

    def test_the_pipeline_is_left_as_it_is(self, pipe: DiffusionPipeline, folder: Path):
        pipe.unet.train()
        before = {name: tensor.clone() for name, tensor in pipe.unet.state_dict().items()}
        sample_labels(pipe, folder, replace(FEW, count=5))
        after = pipe.unet.state_dict()
        assert pipe.unet.training
        assert all(torch.equal(before[name], after[name]) for name in before)


class TestResuming:
    def test_only_what_is_missing_is_measured(self, pipe: DiffusionPipeline, folder: Path):
        before = (folder / "labels.jsonl").read_text()
        executor = Counting()
        labels = sample_labels(pipe, folder, replace(FEW, count=6), executor=executor)
        assert len(executor.tasks) == 2
        assert len(labels) == 6
        assert (folder / "labels.jsonl").read_text().startswith(before)

    def test_an_interrupted_run_goes_on_to_the_same_journal(
        self, pipe: DiffusionPipeline, finished: Path, tmp_path: Path
    ):
        folder = tmp_path / "labels"
        with pytest.raises(KeyboardInterrupt) as interruption:
            sample_labels(pipe, folder, FEW, executor=Counting(last=2))
        assert f"finished labels are kept in {folder}" in interruption.value.__notes__
        assert len(Record.read(folder / "labels.jsonl").entries) == 2
        executor = Counting()
        sample_labels(pipe, folder, FEW, executor=executor)
        assert len(executor.tasks) == 3
        assert (folder / "labels.jsonl").read_bytes() == (finished / "labels.jsonl").read_bytes()

    def test_a_killed_run_goes_on_to_the_same_journal(
        self, smallest_folder: Path, finished: Path, tmp_path: Path
    ):
        script = f"""
import os, signal, sys
import mezzotint as mz
from mezzotint._journal import Journal
from mezzotint.recipes.label_options import SampleOptions
from mezzotint.recipes.labelling import sample_labels

write = Journal._write

def dying(self, record):
    if len(self.entries) == 4:
        self._file.write(b'{{"unit": "config')
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, record)

Journal._write = dying
options = SampleOptions(count=4, formats={FORMATS!r}, metric="noise", images=2)
sample_labels(mz.load({str(smallest_folder)!r}), {str(tmp_path / "labels")!r}, options)
"""
        killed = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL
        executor = Counting()
        sample_labels(mz.load(smallest_folder), tmp_path / "labels", FEW, executor=executor)
        assert len(executor.tasks) == 2
        journals = [each / "labels.jsonl" for each in (tmp_path / "labels", finished)]
        assert journals[0].read_bytes() == journals[1].read_bytes()

    def test_moments_are_not_gathered_again_for_a_finished_bank(
        self, pipe: DiffusionPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        options = replace(FEW, rounding="feedback", count=2)
        sample_labels(pipe, tmp_path / "labels", options)
        monkeypatch.setattr("mezzotint.recipes.study.moments_of_plans", None)
        assert len(sample_labels(pipe, tmp_path / "labels", replace(options, count=3))) == 3


class TestRefusals:
    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"metric": ABSOLUTE}, "labels of another metric .then noise, now tests.labels"),
            ({"seed": 1}, "labels of other prompts, seeds or steps"),
            ({"rounding": "feedback"}, "labels of another rounding .then nearest, now feedback."),
            ({"formats": FORMATS[:2]}, "labels of other formats .then kmeans3/tensor, uint3"),
            ({"bos": True}, "labels of layers .* first tokens .bos then False, now True."),
        ],
        ids=["metric", "seed", "rounding", "formats", "bos"],
    )
    def test_labels_of_something_else_are_named_and_kept(
        self, pipe: DiffusionPipeline, folder: Path, changed: dict[str, object], message: str
    ):
        before = (folder / "labels.jsonl").read_bytes()
        with pytest.raises(LabelError, match=rf"{folder}: holds {message}"):
            sample_labels(pipe, folder, replace(FEW, **changed))
        assert (folder / "labels.jsonl").read_bytes() == before

    def test_so_are_those_of_other_prompts(self, pipe: DiffusionPipeline, folder: Path):
        with pytest.raises(LabelError, match="labels of other prompts"):
            sample_labels(pipe, folder, FEW, sampling=mz.Sampling(("tree", "house")))

    def test_and_of_images_of_other_prompts_or_seeds(self, pipe: DiffusionPipeline, tmp_path: Path):
        folder, options = tmp_path / "labels", replace(IMAGES, count=2)
        sample_labels(pipe, folder, options)
        for changed, prompt in ((replace(options, seed=9), None), (options, "tree")):
            asked = None if prompt is None else mz.Sampling(prompt)
            with pytest.raises(LabelError, match="labels of other prompts, seeds or steps"):
                sample_labels(pipe, folder, changed, sampling=asked)

    def test_and_those_of_another_model(self, pipe: DiffusionPipeline, folder: Path):
        with torch.no_grad():
            pipe.unet.conv_out.weight[0, 0, 0, 0] += 1
        with pytest.raises(LabelError, match="labels of another model"):
            sample_labels(pipe, folder, FEW)

    def test_a_bank_of_other_weights_is_named(self, pipe: DiffusionPipeline, folder: Path):
        for name in ("labels.json", "labels.jsonl", "graph.json"):
            (folder / name).unlink()
        with torch.no_grad():
            pipe.unet.conv_out.weight[0, 0, 0, 0] += 1
        with pytest.raises(
            BankError, match=r"a bank of other weights, such as those of .*conv_out"
        ):
            sample_labels(pipe, folder, FEW)

    def test_a_folder_of_other_things_is_left_alone(self, pipe: DiffusionPipeline, tmp_path: Path):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(LabelError, match=r"holds notes\.txt, and no labels"):
            sample_labels(pipe, tmp_path, FEW)
        with pytest.raises(LabelError, match="is a file; name a folder"):
            sample_labels(pipe, tmp_path / "notes.txt", FEW)

    def test_two_processes_do_not_share_a_folder(self, pipe: DiffusionPipeline, folder: Path):
        with only_here(folder), pytest.raises(UsageError, match="another process"):
            sample_labels(pipe, folder, FEW)

    def test_a_full_disk_keeps_finished_labels(
        self, pipe: DiffusionPipeline, folder: Path, monkeypatch: pytest.MonkeyPatch
    ):
        write = Journal._write

        def full(self: Journal, record: dict[str, object]) -> None:
            if len(self.entries) > 5:
                raise OSError(28, "No space left on device")
            write(self, record)

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "_write", full)
            with pytest.raises(LabelError, match=rf"{folder}: cannot be written \(No space left"):
                sample_labels(pipe, folder, replace(FEW, count=6))
        assert len(Labels.read(folder)) == 4
        assert len(sample_labels(pipe, folder, replace(FEW, count=6))) == 6

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("one_short", "return one for each"),
            ("not_a_number", "returned nan for image 1"),
            ("failing", r"fails \(no such network\)"),
        ],
    )
    def test_what_a_metric_does_wrong_is_told_before_anything_is_written(
        self, pipe: DiffusionPipeline, tmp_path: Path, name: str, message: str
    ):
        options = replace(IMAGES, metric=f"{user_metrics.__name__}:{name}")
        with pytest.raises(UsageError, match=message):
            sample_labels(pipe, tmp_path / "labels", options)
        assert not (tmp_path / "labels").exists()

    def test_more_configurations_than_there_are(self, pipe: DiffusionPipeline, tmp_path: Path):
        keys = sum(isinstance(each, nn.Linear | nn.Conv2d) for each in pipe.unet.modules())
        options = replace(FEW, formats=FORMATS[:2], count=2 ** (keys + 9))
        with pytest.raises(UsageError, match=r"2 formats of \d+ weights make"):
            sample_labels(pipe, tmp_path / "labels", options)
        assert not (tmp_path / "labels").exists()

    def test_constant_labels_teach_nothing(self, pipe: DiffusionPipeline, tmp_path: Path):
        options = replace(IMAGES, metric=f"{user_metrics.__name__}:constant")
        with pytest.raises(LabelError, match=r"all 4 labels are 1: the metric .*constant tells"):
            sample_labels(pipe, tmp_path / "labels", options)

    def test_tied_layers_are_named(self, pipe: DiffusionPipeline, tmp_path: Path):
        attention = "up_blocks.0.attentions.0.transformer_blocks.0.attn1"
        layers = pipe.unet.get_submodule(attention)
        layers.to_k.weight = layers.to_q.weight
        with pytest.raises(ModelError, match=rf"{attention}.to_k and {attention}.to_q share"):
            sample_labels(pipe, tmp_path / "labels", FEW)

    def test_nan_weights_are_named(self, pipe: DiffusionPipeline, tmp_path: Path):
        with torch.no_grad():
            pipe.unet.conv_out.bias[0] = torch.nan
        with pytest.raises(CalibrationError, match=r"NaN"):
            sample_labels(pipe, tmp_path / "labels", FEW)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"count": 0}, "count: is 0; give 1 or more"),
            ({"seed": -1}, "seed: is -1; give 0 or more"),
            ({"formats": (FORMATS[0], "float")}, "'float' quantizes nothing"),
            ({"formats": (FORMATS[0], FORMATS[0])}, "give different ones"),
            ({"formats": FORMATS[:1]}, "one configuration; give two or more"),
            ({"images": 0}, "images: is 0; give 1 or more"),
            ({"metric": "fd", "images": 64}, "fd of 64 is not possible; give 1,000"),
            ({"metric": "fid"}, "there is no 'fid'"),
        ],
        ids=[
            "count",
            "seed",
            "floating",
            "formats",
            "one format",
            "images",
            "few for fd",
            "metric",
        ],
    )
    def test_options_out_of_their_domain(
        self, pipe: DiffusionPipeline, folder: Path, changed: dict[str, object], message: str
    ):
        with pytest.raises((UsageError, LabelError), match=message):
            sample_labels(pipe, folder, replace(FEW, **changed))

    def test_a_metric_that_cannot_be_imported_is_told_before_anything_is_written(
        self, pipe: DiffusionPipeline, tmp_path: Path
    ):
        options = replace(FEW, metric="no_such:thing")
        with pytest.raises(UsageError, match="no_such:thing: cannot be imported"):
            sample_labels(pipe, tmp_path / "labels", options)
        assert not (tmp_path / "labels").exists()

    def test_a_folder_of_other_things_is_left_as_it_is(
        self, pipe: DiffusionPipeline, tmp_path: Path
    ):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(LabelError, match=r"holds notes\.txt, and no labels"):
            sample_labels(pipe, tmp_path, FEW)
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


class TestReading:
    def test_a_folder_without_labels_is_named(self, tmp_path: Path):
        with pytest.raises(LabelError, match=f"{tmp_path}: holds no labels; make some with"):
            Labels.read(tmp_path)

    def test_so_is_one_where_none_is_finished(self, folder: Path):
        path = folder / "labels.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
        with pytest.raises(LabelError, match="holds no labels yet; go on with"):
            Labels.read(folder)

    def test_configurations_that_come_twice_are_measured_once(
        self, pipe: DiffusionPipeline, folder: Path, tmp_path: Path
    ):
        labels, bank = Labels.read(folder), Bank.open(folder / "bank")
        twice = [
            ConfigurationChange.of(labels.configuration(0), bank, labels.keys, labels.formats)
        ] * 2
        calls = mz.record_calls(pipe, mz.Sampling(("owl", "red apple")))
        executor = Counting()(Original(pipe.unet.eval(), calls, Calibration(encoded=bank)))
        tasks = [Task(change, FEW.measure) for change in twice]
        with Journal(tmp_path / "journal.jsonl", {}) as journal:
            first, second = measure(tasks, executor, journal)
        assert first == second
        assert len(executor.tasks) == 1

    def test_one_label_can_be_read(self, folder: Path):
        path = folder / "labels.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
        assert len(Labels.read(folder)) == 1

    def test_stored_tensors_are_not_needed(self, folder: Path):
        index = (folder / "bank" / "bank.json").read_bytes()
        (folder / "bank").unlink()
        (folder / "bank").mkdir()
        (folder / "bank" / "bank.json").write_bytes(index)
        assert len(Labels.read(folder)) == 4

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda unit, found: (unit, found | {"noise": float("nan")}), "noise is nan"),
            (lambda unit, found: (unit, found | {"noise": -1.0}), "noise is -1"),
            (lambda unit, found: (unit, {}), "noise is missing"),
            (
                lambda unit, found: (unit, {k: v for k, v in found.items() if k != "sample 0"}),
                "sample 0 is missing",
            ),
            (
                lambda unit, found: (unit.replace("configuration ", "configuration 0"), found),
                "no configuration of",
            ),
        ],
        ids=["NaN", "negative", "missing", "sample missing", "another length"],
    )
    def test_a_damaged_label_is_named(self, folder: Path, change, message: str):
        path = folder / "labels.jsonl"
        journals.edit(path, lambda _, entries: [*entries[:-1], change(*entries[-1])])
        with pytest.raises(LabelError, match=message):
            Labels.read(folder)

    def test_ruined_configurations_are_left_out_and_counted(self, folder: Path):
        path = folder / "labels.jsonl"

        def ruined(_, entries):
            unit, figures = entries[-1]
            return [*entries[:-1], (unit, dict.fromkeys(figures))]

        journals.edit(path, ruined)
        found = Labels.read(folder)
        assert (len(found), found.ruined) == (3, 1)

    def test_a_label_measured_twice_counts_once(self, folder: Path):
        path = folder / "labels.jsonl"
        path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n")
        assert len(Labels.read(folder)) == 4

    def test_files_of_different_folders_are_told_apart(self, folder: Path):
        header = json.loads((folder / "labels.json").read_text())
        (folder / "labels.json").write_text(json.dumps(header | {"calls": "others"}))
        with pytest.raises(LabelError, match=r"is of other labels than labels\.json beside it"):
            Labels.read(folder)

    @pytest.mark.parametrize("field", ["metric", "formats", "weights"])
    def test_a_damaged_header_is_named(self, folder: Path, field: str):
        header = json.loads((folder / "labels.json").read_text())
        del header[field]
        (folder / "labels.json").write_text(json.dumps(header))
        with pytest.raises(LabelError, match=rf"labels.json: field {field}"):
            Labels.read(folder)

    @pytest.mark.parametrize(
        "sampling", [{}, {"prompts": []}, {"prompts": ["owl"], "steps": 0}], ids=str
    )
    def test_damaged_prompts_are_named(self, folder: Path, sampling: dict[str, object]):
        header = json.loads((folder / "labels.json").read_text())
        (folder / "labels.json").write_text(json.dumps(header | {"sampling": sampling}))
        with pytest.raises(LabelError, match=r"labels\.json: field sampling"):
            Labels.read(folder)

    def test_a_format_that_the_bank_lacks_is_named(self, folder: Path):
        index = json.loads((folder / "bank" / "bank.json").read_text())
        layer = next(iter(index["layers"].values()))
        name, node = next(iter(layer["nodes"].items()))
        del node["candidates"][FORMATS[1]]
        (folder / "bank").unlink()
        (folder / "bank").mkdir()
        (folder / "bank" / "bank.json").write_text(json.dumps(index))
        with pytest.raises(LabelError, match=f"its bank has no {FORMATS[1]} of {name}"):
            Labels.read(folder)


def test_what_workers_are_sent_makes_the_same_figures(
    smallest_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options = replace(FEW, rounding="feedback", count=2)
    labels = sample_labels(mz.load(smallest_folder), tmp_path / "labels", options)
    bank = Bank.open(tmp_path / "labels" / "bank")
    changes = [
        ConfigurationChange.of(labels.configuration(index), bank, labels.keys, labels.formats)
        for index in range(2)
    ]
    tasks = [Task(change, options.measure) for change in changes]
    sent = pickle.dumps((tasks, Calibration(encoded=bank)))
    assert len(sent) < 200_000
    # A worker elsewhere: it has no moments, so that it cannot round anything itself.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(encoded, "encoded_part", None)
    tasks, calibration = pickle.loads(sent)
    pipe = mz.load(smallest_folder)
    calls = mz.record_calls(pipe, mz.Sampling(("owl", "red apple")))
    executor = InProcess(Original(pipe.unet.eval(), calls, calibration))
    found = [figures["noise"] for _, figures in executor.figures(tasks)]
    assert found == labels.values.tolist()


def test_a_change_says_what_it_is_and_names_no_file(finished: Path):
    labels, bank = Labels.read(finished), Bank.open(finished / "bank")
    every = Configuration(dict.fromkeys(labels.keys, FORMATS[2]))
    change = ConfigurationChange.of(every, bank, labels.keys, labels.formats)
    assert change.name == f"configuration {'2' * len(labels.keys)}"
    assert change.plan.encoding == bank.encoding
