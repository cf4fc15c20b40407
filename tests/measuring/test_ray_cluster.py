"""Workers on a Ray cluster find the figures and images of one process, whatever dies meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from typer.testing import CliRunner

import mezzotint as mz
from mezzotint._journal import Journal, Record
from mezzotint.cli import app
from mezzotint.errors import ExecutorError, FormatError, UsageError
from mezzotint.measuring import (
    Figures,
    ImageError,
    InProcess,
    InputChange,
    LayerChange,
    Noise,
    Original,
    PlanChange,
    RayCluster,
    Task,
    Unchanged,
    executor_named,
    generate_with,
    measure,
)
from mezzotint.measuring.identity import component_digests
from mezzotint.measuring.ray_cluster import connection
from mezzotint.measuring.ray_cluster.cluster import _KEPT, _parts
from mezzotint.measuring.ray_cluster.connection import import_ray
from mezzotint.models import Sampling, denoising_module, generate, inventory, record_calls
from mezzotint.plan import Choice, Plan, SimulatedAttention
from mezzotint.runtime import round_attention
from tests.docs.pages import ROOT
from tests.measuring.conftest import recorded_calls
from tests.measuring.deadly import Deadly
from tests.models import several
from tests.models.tiny import (
    smallest_unet,
    tiny_stable_diffusion,
    tiny_unet,
    write_generation,
)
from tests.recipes.labelled_pipeline import FORMATS, save_smallest

W2, W4, W8 = (Choice(f"int{bits}/channel") for bits in (2, 4, 8))
A8, STATIC = Choice("int8/channel", "int8/token"), Choice("int8/channel", "uint8/tensor")
SAMPLING = Sampling(("owl", "red heart", "tree"), batch=2)
MACHINE = {
    "num_cpus": 1,
    "object_store_memory": 80 * 2**20,
    "include_dashboard": False,
    "include_log_monitor": False,
    "no_monitor": True,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in the order of the workers, which have a thread each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


T = TypeVar("T")


def patient(start: Callable[[], T], tries: int = 3) -> T:
    """Start a machine; Ray gives it 30 seconds, which is not enough where all cores are busy."""
    for _ in range(tries - 1):
        with contextlib.suppress(Exception):
            return start()
    return start()


@pytest.fixture(scope="module")
def machines():
    """A cluster of two machines with a core each, beside that of the driver, which has none."""
    ray = import_ray()
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in connection.STARTED.items():
            patch.setenv(name, value)
        cluster = patient(
            lambda: Cluster(initialize_head=True, head_node_args={**MACHINE, "num_cpus": 0})
        )
        for _ in range(2):
            patient(lambda: cluster.add_node(**MACHINE))
        try:
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray has set another one


@pytest.fixture(scope="module")
def cluster(machines) -> RayCluster:
    """Keeps its workers from test to test, as long as those are about the same model."""
    return RayCluster(address=machines.address)


@pytest.fixture(scope="module")
def single(machines, cluster: RayCluster) -> RayCluster:
    """One worker, in the place of all others."""
    cluster.dismiss()
    return RayCluster(address=machines.address, workers=1)


@pytest.fixture(scope="module")
def original() -> Original:
    unet = tiny_unet().eval()
    return Original(unet, recorded_calls(unet))


@pytest.fixture(scope="module")
def tasks(original: Original) -> list[Task]:
    """Changes of some layers, not in the order of execution, and of the whole model."""
    layers = [layer.name for layer in inventory(original.denoiser) if layer.supported][::6]
    changes = [LayerChange(name, choice) for name in reversed(layers) for choice in (W2, W4)]
    changes += [InputChange(name, A8) for name in layers]
    plans = [PlanChange(Plan(dict.fromkeys(layers, choice))) for choice in (W2, W8)]
    return [Task(change, Noise()) for change in (*changes, *plans, Unchanged())]


@pytest.fixture(scope="module")
def expected(original: Original, tasks: Sequence[Task]) -> list[Figures]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = measure(tasks, InProcess(original), Journal(None, {}))
    torch.set_num_threads(threads)
    return found


@pytest.fixture(scope="module")
def turbo(tmp_path_factory: pytest.TempPathFactory) -> DiffusionPipeline:
    """Few layers, loaded from a folder; read only."""
    folder = tmp_path_factory.mktemp("models") / "tiny-turbo"
    pipe = tiny_stable_diffusion()
    pipe.register_modules(unet=smallest_unet())
    pipe.save_pretrained(folder)
    write_generation(folder, num_inference_steps=2, guidance_scale=1.0)
    return mz.load(folder)


def units(path: Path) -> list[str]:
    """Keys in a journal, by line."""
    return [json.loads(line)["unit"] for line in path.read_text().splitlines()[1:]]


class TestWork:
    def test_figures_are_those_of_one_process_bit_for_bit(
        self, cluster: RayCluster, original: Original, tasks: list[Task], expected: list[Figures]
    ):
        assert measure(tasks, cluster(original), Journal(None, {})) == expected
        assert len({figures["noise"] for figures in expected}) > len(tasks) / 2

    def test_both_machines_have_a_worker(self, cluster: RayCluster, original: Original):
        assert cluster.pool(original).size == 2

    def test_other_calls_need_no_other_workers(
        self, cluster: RayCluster, original: Original, tasks: list[Task], expected: list[Figures]
    ):
        pool = cluster.pool(original)
        fewer = replace(original, calls=original.calls[:1])
        found = measure(tasks[:2], cluster(fewer), Journal(None, {}))
        assert found == measure(tasks[:2], InProcess(fewer), Journal(None, {}))
        assert found != expected[:2]
        assert cluster.pool(fewer) is pool

    def test_our_errors_arrive_as_they_were_raised(self, cluster: RayCluster, original: Original):
        lacking = [Task(InputChange("conv_in", STATIC), Noise())]
        messages = []
        for executor in (InProcess(original), cluster(original)):
            with pytest.raises(FormatError) as error:
                measure(lacking, executor, Journal(None, {}))
            messages.append(str(error.value))
        assert messages[0] == messages[1]
        assert "conv_in" in messages[0]

    def test_a_bare_denoiser_makes_no_images(self, cluster: RayCluster, original: Original):
        with pytest.raises(UsageError, match="a bare denoiser does not make"):
            list(cluster(original).images([SAMPLING]))


class TestDeath:
    def test_a_killed_worker_s_tasks_go_to_others(
        self,
        cluster: RayCluster,
        original: Original,
        tasks: list[Task],
        expected: list[Figures],
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ):
        metric = Deadly(tmp_path / "killed")
        deadly = [Task(task.change, metric) for task in tasks]
        with Journal(tmp_path / "journal", {}) as journal:
            assert measure(deadly, cluster(original), journal) == expected
        assert metric.mark is not None
        assert metric.mark.exists()
        assert sorted(units(tmp_path / "journal")) == sorted(task.key for task in deadly)
        assert capfd.readouterr() == ("", "")

    def test_a_task_that_kills_every_worker_is_named(
        self, cluster: RayCluster, original: Original, monkeypatch: pytest.MonkeyPatch
    ):
        from mezzotint.measuring.ray_cluster import pool

        monkeypatch.setattr(pool, "_DEATHS", 1)
        task = Task(LayerChange("conv_in", W2), Deadly())
        why = f"1 workers died while it measured {re.escape(repr(task.key))}"
        with pytest.raises(ExecutorError, match=why):
            measure([task], cluster(original), Journal(None, {}))

    def test_a_machine_leaves_and_another_one_joins(
        self,
        machines,
        cluster: RayCluster,
        original: Original,
        tasks: list[Task],
        expected: list[Figures],
    ):
        found = {}
        for task, figures in cluster(original).figures(tasks):
            assert task.key not in found
            found[task.key] = figures
            if len(found) == 2:
                machines.remove_node(machines.list_all_nodes()[-1])
            if len(found) == 4:
                machines.add_node(**MACHINE)
        assert [found[task.key] for task in tasks] == expected


DRIVER = """
import os, signal, sys
from pathlib import Path
import torch
from mezzotint._journal import Journal
from mezzotint.measuring import LayerChange, Noise, Original, RayCluster, Task, measure
from mezzotint.plan import Choice
from tests.measuring.conftest import recorded_calls
from tests.models.tiny import tiny_unet

class Dying(Journal):
    def add(self, unit, result, source=None):
        super().add(unit, result, source)
        if len(self.entries) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
unet = tiny_unet().eval()
changes = [LayerChange("conv_in", Choice(f"int{bits}/channel")) for bits in (2, 3, 4, 5, 6)]
tasks = [Task(change, Noise()) for change in changes]
cluster = RayCluster(address=sys.argv[1], workers=1)
with Dying(Path(sys.argv[2]), {}) as journal:
    measure(tasks, cluster(Original(unet, recorded_calls(unet))), journal)
"""


def test_a_driver_that_was_killed_goes_on(
    machines, single: RayCluster, original: Original, tmp_path: Path
):
    path = os.pathsep.join([str(ROOT), *sys.path])
    killed = subprocess.run(
        [sys.executable, "-c", DRIVER, machines.address, str(tmp_path / "journal")],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(units(tmp_path / "journal")) == 2
    changes = [LayerChange("conv_in", Choice(f"int{bits}/channel")) for bits in (2, 3, 4, 5, 6)]
    again = [Task(change, Noise()) for change in changes]
    with Journal(tmp_path / "journal", {}) as journal:
        found = measure(again, single(original), journal)
    assert found == measure(again, InProcess(original), Journal(None, {}))
    assert sorted(units(tmp_path / "journal")) == sorted(task.key for task in again)


class TestPipelines:
    """One after another, as each needs workers of its own."""

    def test_workers_build_a_pipeline_after_its_source(
        self, single: RayCluster, turbo: DiffusionPipeline
    ):
        calls = record_calls(turbo, SAMPLING)
        model = Original(turbo.unet, calls, pipe=turbo, sampling=SAMPLING)
        changes = [
            LayerChange(name, choice) for name in ("conv_in", "conv_out") for choice in (W2, W4)
        ]
        todo = [Task(change, metric) for change in changes for metric in (Noise(), ImageError(2))]
        found = measure(todo, single(model), Journal(None, {}))
        assert found == measure(todo, InProcess(model), Journal(None, {}))
        assert single.pool(model).source == turbo.name_or_path

    def test_images_are_those_of_one_process(self, single: RayCluster, turbo: DiffusionPipeline):
        sampling = replace(SAMPLING, prompts=SAMPLING.prompts * 2, seed=7)
        assert np.array_equal(generate_with(single, turbo, sampling), generate(turbo, sampling))

    def test_a_recipe_measures_the_same(self, single: RayCluster, turbo: DiffusionPipeline):
        recipe, budget = mz.MixDQ(bos=False), mz.Budget(5)
        here, there = (
            mz.quantize(turbo, recipe, budget, sampling=SAMPLING, executor=executor)
            for executor in (None, single)
        )
        assert there.plan.choices == here.plan.choices
        assert there.measurements == here.measurements

    @pytest.mark.thorough
    def test_several_denoisers_are_one_module_there_as_here(self, single: RayCluster, tmp_path):
        pipe = mz.load(several.save_wan(tmp_path / "wan"))
        calls = record_calls(pipe, SAMPLING)
        model = Original(denoising_module(pipe), calls, pipe=pipe, sampling=SAMPLING)
        changes = [
            LayerChange(f"{name}.blocks.0.ffn.net.2", W2)
            for name in ("transformer", "transformer_2")
        ]
        todo = [Task(change, Noise()) for change in changes]
        assert measure(todo, single(model), Journal(None, {})) == measure(
            todo, InProcess(model), Journal(None, {})
        )
        assert np.array_equal(generate_with(single, pipe, SAMPLING), generate(pipe, SAMPLING))

    def test_what_is_unlike_its_source_is_sent(self, single: RayCluster, turbo: DiffusionPipeline):
        changed = mz.apply(turbo, mz.uniform_plan(turbo.unet, weight_bits=3, act_bits=8)).pipeline
        changed.scheduler = DDIMScheduler()
        images = generate(changed, SAMPLING)
        assert not np.array_equal(images, generate(turbo, SAMPLING))
        assert np.array_equal(generate_with(single, changed, SAMPLING), images)
        model = Original(changed.unet, pipe=changed)
        assert single.pool(model).source is None


def sampled(model: Path, folder: Path, *options: str) -> Record:
    """The journal of four labels by noise, after the command."""
    arguments = ["sample", str(model), "-n", "4", "--journal", str(folder)]
    arguments += ["--metric", "noise", "--images", "2", "--formats", ",".join(FORMATS)]
    result = CliRunner().invoke(app, [*arguments, *options], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return Record.read(folder / "labels.jsonl")


def test_labels_of_a_cluster_are_those_of_one_process(
    machines, cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Bit for bit, none twice; and a run that was killed while it wrote one goes on."""
    cluster.dismiss()
    model = save_smallest(tmp_path / "tiny")
    expected = sampled(model, tmp_path / "here").entries
    assert len(expected) == 1 + 4
    assert len({figures["noise"] for figures in expected.values()}) == len(expected)
    monkeypatch.setattr(InProcess, "figures", None)  # all that follows is measured elsewhere
    there, on_ray = tmp_path / "there", ("--executor", "ray", "--address", machines.address)
    journal = there / "labels.jsonl"
    assert sampled(model, there, *on_ray).entries == expected
    assert sorted(units(journal)) == sorted(expected)
    *kept, _, torn = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*kept, torn[:20]]))
    assert sampled(model, there, *on_ray).entries == expected
    assert sorted(units(journal)) == sorted(expected)


def test_the_object_store_is_not_filled_up(machines, cluster: RayCluster, original: Original):
    """A long run has other calls again and again; those used last are not sent twice."""
    calls = [tuple(original.calls) for _ in range(_KEPT + 1)]
    calls = [(*each, each[0]) for each in calls]  # objects of their own
    cluster.pool(original)
    references = [cluster.reference(each, lambda: "sent") for each in calls]
    assert len(cluster._sent) == _KEPT
    assert cluster.reference(calls[-1], lambda: "again") is references[-1]
    assert cluster.reference(calls[1], lambda: "again") is references[1]
    assert cluster.reference(calls[0], lambda: "again") is not references[0]
    assert cluster.reference(calls[1], lambda: "again") is references[1]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_workers_of_a_model_on_cuda_take_a_gpu_each(unet_pipe: DiffusionPipeline, device: str):
    import_ray()
    from mezzotint.measuring.ray_cluster.blueprint import Blueprint

    parts = [each for each in unet_pipe.components.values() if isinstance(each, nn.Module)]
    held = sum(weight.nbytes for part in parts for weight in part.parameters())
    blueprint = Blueprint(unet_pipe, "somewhere", {}, torch.float32, device, threads=3)
    need = dict(blueprint.need)
    assert need.pop("memory") > 2 * held
    assert need == {"CPU": 3.0} | ({"GPU": 1.0} if device == "cuda" else {})


class TestDigests:
    """Pipelines that compute the same, bit for bit."""

    def test_a_pipeline_is_like_another_load_of_it(self, unet_folder: Path):
        first, second = (component_digests(mz.load(unet_folder)) for _ in range(2))
        assert first == second

    @pytest.mark.parametrize(
        ("part", "change"),
        [
            ("unet", lambda pipe: pipe.unet.conv_in.weight.data.mul_(2)),
            ("unet", lambda pipe: pipe.unet.to(memory_format=torch.channels_last)),
            ("unet", lambda pipe: pipe.unet.half()),
            ("unet", lambda pipe: pipe.unet.set_attn_processor(AttnProcessor())),
            ("unet", lambda pipe: round_attention(pipe.unet, SimulatedAttention(q=8))),
            ("vae", lambda pipe: pipe.vae.decoder.conv_out.bias.data.add_(1)),
            ("scheduler", lambda pipe: pipe.scheduler.register_to_config(beta_end=0.5)),
            ("scheduler", lambda pipe: setattr(pipe, "scheduler", DDIMScheduler())),
        ],
        ids=[
            *("weight", "strides", "dtype", "attention", "rounded attention"),
            *("decoder", "configuration", "class"),
        ],
    )
    def test_a_changed_component_is_told(self, unet_pipe: DiffusionPipeline, part: str, change):
        before = component_digests(unet_pipe)
        change(unet_pipe)
        after = component_digests(unet_pipe)
        assert [name for name in before if before[name] != after[name]] == [part]


def test_parts_keep_the_order_and_are_as_many_as_asked_for():
    groups = ["abcdef", "gh", "i"]
    assert _parts(groups, 3) == [list("abc"), list("def"), list("gh"), ["i"]]
    assert _parts(groups, 1) == [list("abcdef"), list("gh"), ["i"]]
    assert _parts(groups, 100) == [[letter] for letter in "abcdefghi"]


class TestRefusals:
    def test_no_machine_has_room(self, machines, original: Original):
        wide = RayCluster(address=machines.address, threads=64)
        why = r"no machine of the cluster has room for a worker \(CPU 64, memory [\d.e+,]+\)"
        with pytest.raises(ExecutorError, match=why):
            measure([Task(Unchanged(), Noise())], wide(original), Journal(None, {}))

    def test_nothing_answers_at_the_address(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        why = rf"address 127\.0\.0\.1:{port}: no Ray cluster answers \(.*refused.*ray start"
        with pytest.raises(ExecutorError, match=why):
            executor_named("ray", address=f"127.0.0.1:{port}")

    @pytest.mark.parametrize("address", ["auto", "localhost", "ray://localhost:1", "a:b", ":6379"])
    def test_no_address(self, address: str):
        with pytest.raises(UsageError, match=rf"address: '{address}' is none of a Ray cluster"):
            executor_named("ray", address=address)

    def test_the_cluster_of_the_environment_counts(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("RAY_ADDRESS", "nowhere")
        with pytest.raises(UsageError, match="address: 'nowhere'"):
            executor_named("ray")

    def test_another_cluster_than_that_of_the_process(
        self, machines, cluster: RayCluster, original: Original
    ):
        cluster.pool(original)
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            elsewhere = RayCluster(address=f"127.0.0.1:{other.getsockname()[1]}")
            with pytest.raises(ExecutorError, match="has joined the cluster at"):
                elsewhere.pool(original)

    @pytest.mark.parametrize("option", ["workers", "threads"])
    def test_no_workers(self, option: str):
        with pytest.raises(UsageError, match=f"{option}: is 0; give 1 or more"):
            executor_named("ray", **{option: 0})

    def test_without_ray_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(UsageError, match=r"executor ray: .* `pip install mezzotint\[ray\]`"):
            executor_named("ray")
