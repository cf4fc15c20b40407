import pytest

import mezzotint as mz
from mezzotint.cli._arguments import sampling_of
from mezzotint.errors import UsageError


@pytest.fixture
def pipe(model):
    return mz.load(model)


def test_prompts_come_with_the_model(pipe):
    sampling = sampling_of(pipe, None, seed=1, steps=2)
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
