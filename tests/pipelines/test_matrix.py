"""Each kind of pipeline works with each feature, or is refused in one sentence with the remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

import mezzotint as mz
from tests.pipelines.case import Case
from tests.pipelines.cells import CELLS
from tests.pipelines.columns import COLUMNS
from tests.pipelines.fresh_process import FreshProcess
from tests.pipelines.registry import PIPELINES
from tests.pipelines.tiny_pipeline import TinyPipeline

pytestmark = [
    # Of diffusers, on its own calls.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning"),
    # The argument's old name, which still is what people write.
    pytest.mark.filterwarnings("ignore:.torch_dtype. is deprecated:FutureWarning"),
    # Two images tell little.
    pytest.mark.filterwarnings("ignore::mezzotint.errors.CalibrationWarning"),
]


@pytest.fixture(scope="module")
def process() -> Iterator[FreshProcess]:
    found = FreshProcess()
    yield found
    found.end()


@pytest.fixture(scope="module")
def case_of(
    tmp_path_factory: pytest.TempPathFactory, process: FreshProcess
) -> Callable[[TinyPipeline], Case]:
    cases: dict[str, Case] = {}

    def found(tiny: TinyPipeline) -> Case:
        if tiny.title not in cases:
            cases[tiny.title] = Case(tiny, tmp_path_factory.mktemp(tiny.name), process)
        return cases[tiny.title]

    return found


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("tiny", PIPELINES, ids=lambda tiny: tiny.name)
def test_it_works_or_is_refused_with_the_remedy(
    tiny: TinyPipeline, column: str, case_of: Callable[[TinyPipeline], Case]
):
    if column not in tiny.refusals:
        CELLS[column](case_of(tiny))
        return
    with pytest.raises(mz.MezzotintError, match=tiny.refusals[column].message) as caught:
        CELLS[column](case_of(tiny))
    assert "\n" not in str(caught.value)


def test_every_column_has_a_check():
    assert list(CELLS) == list(COLUMNS)


def test_every_pipeline_has_a_name_of_its_own():
    assert len({tiny.name for tiny in PIPELINES}) == len(PIPELINES)


def test_refusals_are_of_columns():
    assert all(set(tiny.refusals) <= set(COLUMNS) for tiny in PIPELINES)


def test_a_pipeline_that_is_not_compiled_does_not_pass_for_one(case_of, monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *_, **__: None)
    monkeypatch.setitem(torch._dynamo.utils.counters["stats"], "unique_graphs", 1)
    with pytest.raises(AssertionError):
        CELLS["compile"](case_of(PIPELINES[0]))
