import pytest

import mezzotint as mz
from mezzotint.checkpoint import read_plan
from mezzotint.cli._arguments import executor_of
from mezzotint.cli._asked_sampling import sampling_of
from mezzotint.cli._option_groups import Calling
from mezzotint.errors import UsageError
from mezzotint.measuring import InProcess, RayCluster
from tests.cli.conftest import BRIEF


@pytest.fixture
def pipe(model):
    return mz.load(model)


def test_prompts_come_with_the_model(pipe):
    sampling = sampling_of(pipe, None, seed=1, calling=Calling(steps=2))
    assert set(sampling.prompts) == {"owl", "apple"}
    assert (sampling.seed, sampling.steps) == (1, 2)


def test_a_file_replaces_them(pipe, tmp_path):
    (tmp_path / "prompts.txt").write_text("ship\n\nmoon\n")
    assert sampling_of(pipe, tmp_path / "prompts.txt", seed=0).prompts == ("ship", "moon")


@pytest.mark.parametrize(
    ("count", "expected"), [(1, ("owl",)), (3, ("owl", "apple", "owl"))], ids=["cut", "repeated"]
)
def test_prompts_are_cut_or_repeated_to_a_count(pipe, count, expected):
    assert sampling_of(pipe, None, seed=0, count=count).prompts == expected


def test_a_count_of_none_is_refused(pipe):
    with pytest.raises(UsageError, match="prompts"):
        sampling_of(pipe, None, seed=0, count=0)


class TestExecutor:
    def test_none_is_left_to_the_recipe(self):
        assert executor_of(None, None, None) is None
        assert executor_of("in-process", None, None) is InProcess

    def test_its_options_reach_it(self):
        found = executor_of("ray", None, 3)
        assert isinstance(found, RayCluster)
        assert (found.address, found.workers) == (None, 3)

    @pytest.mark.parametrize("verb", ["quantize", "evaluate"])
    @pytest.mark.parametrize(
        ("options", "why"),
        [
            (["--workers", 2], "workers: executor 'in-process' takes none; use executor ray"),
            (["--address", "a:1"], "address: executor 'in-process' takes none; use executor ray"),
            (["--executor", "slurm"], "unknown executor 'slurm'; there are: in-process, ray"),
            (["--executor", "ray", "--address", "auto"], "address: 'auto' is none of a Ray"),
        ],
        ids=["workers", "address", "name", "no address"],
    )
    def test_what_cannot_be_is_an_error(self, fails, model, tmp_path, verb, options, why):
        rest = {"quantize": ["-o", tmp_path / "out"], "evaluate": ["--reference", model]}
        assert fails(verb, model, *rest[verb], *options).startswith(why)
        assert not list(tmp_path.iterdir())

    def test_a_plan_leaves_nothing_to_run(self, fails, model, tmp_path, uniform):
        uniform.save(tmp_path / "plan.json")
        options = ("--plan", tmp_path / "plan.json", "--executor", "ray")
        assert "--executor" in fails("quantize", model, "-o", tmp_path / "out", *options)

    def test_figures_and_images_of_a_named_executor_are_the_same(
        self, run, model, quantized, tmp_path
    ):
        found = []
        for number, options in enumerate(([], ["--executor", "in-process"])):
            output = tmp_path / str(number)
            run("quantize", model, "-o", output, *BRIEF, *options)
            command = ("evaluate", quantized, "--reference", model, "-n", 2, "--json", "-")
            found.append((read_plan(output).choices, run(*command, *options).stdout))
        assert found[0] == found[1]
