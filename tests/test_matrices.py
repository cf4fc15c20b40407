import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.matrices import FEWEST, Combination, axes, diagonal

PRODUCT = """
import pytest
from hypothesis import given, settings, strategies

@pytest.mark.parametrize("digit", range(7))
@pytest.mark.parametrize("letter", "abcdefghijklmnopqrst")
def test_product(letter, digit): pass

@pytest.mark.parametrize(("letter", "digit"), [(a, d) for a in "abcdef" for d in range(6)])
def test_table(letter, digit): pass

@pytest.mark.parametrize("digit", range(4))
@pytest.mark.parametrize("letter", "abc")
def test_small(letter, digit): pass

def test_examples():
    print("examples:", settings.default.max_examples)
"""


def product(*sizes: int) -> list[Combination]:
    values = [[(str(axis), value) for value in range(size)] for axis, size in enumerate(sizes)]
    return list(itertools.product(*values))


SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=4)


class TestDiagonal:
    @given(sizes=SIZES, fewest=st.integers(0, 20))
    def test_every_value_occurs(self, sizes: list[int], fewest: int):
        cells = product(*sizes)
        found = {value for at in diagonal(cells, fewest) for value in cells[at]}
        assert found == {value for cell in cells for value in cell}

    @given(sizes=SIZES, fewest=st.integers(0, 20))
    def test_it_is_as_long_as_the_longest_axis_or_as_the_fewest(
        self, sizes: list[int], fewest: int
    ):
        cells = product(*sizes)
        assert len(diagonal(cells, fewest)) == max(*sizes, min(fewest, len(cells)))

    @given(sizes=SIZES)
    def test_the_values_of_an_axis_occur_nearly_as_often_as_each_other(self, sizes: list[int]):
        cells = product(*sizes)
        kept = [cells[at] for at in diagonal(cells, 0)]
        for axis, size in enumerate(sizes):
            uses = [sum(cell[axis][1] == value for cell in kept) for value in range(size)]
            assert max(uses) - min(uses) <= 2

    @pytest.mark.parametrize("sizes", [(2, 2, 2, 4, 4, 6), (2, 2, 6, 6), (2, 48)], ids=str)
    def test_short_axes_meet_in_every_pair_of_their_values(self, sizes: tuple[int, ...]):
        cells = product(*sizes)
        short = [axis for axis, size in enumerate(sizes) if size == 2]
        for one, other in itertools.combinations(short, 2):
            pairs = {(cells[at][one], cells[at][other]) for at in diagonal(cells)}
            assert len(pairs) == 4

    def test_values_may_be_missing_in_combination(self):
        cells = [cell for cell in product(5, 5) if cell[0][1] != cell[1][1]]
        found = {value for at in diagonal(cells, 0) for value in cells[at]}
        assert len(found) == 10

    def test_nothing_has_no_diagonal(self):
        assert diagonal([]) == []


@pytest.fixture(params=["one", "two"])
def several(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(("letter", "digit"), [("a", 1), ("b", 2)])
@pytest.mark.parametrize("sign", ["+"])
@pytest.mark.usefixtures("several")
def test_a_table_is_one_axis_and_so_is_a_fixture(
    request: pytest.FixtureRequest, letter: str, digit: int, sign: str
):
    found = dict(axes(request.node))
    assert set(found) == {"letter,digit", "sign", "several"}
    assert found["letter,digit"] == (id(letter), id(digit))


class TestSelection:
    """A file of tests, run by pytest in a process of its own."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "pytest.ini").touch()
        file = tmp_path / "test_cells.py"
        file.write_text(PRODUCT)
        return file

    @staticmethod
    def run(*arguments: str | Path) -> str:
        command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
        return subprocess.run(
            [*command, "-rP", *arguments], check=True, capture_output=True, text=True
        ).stdout

    def test_products_are_cut_down_to_a_diagonal(self, file: Path):
        found = self.run(file)
        # The longest axis, a whole table, and a product that is small.
        assert f"{20 + 36 + 12 + 1} passed, {140 - 20} deselected" in found
        assert "examples: 50" in found
        assert FEWEST == 12

    def test_all_runs_every_combination_and_ten_times_the_examples(self, file: Path):
        found = self.run("--all", file)
        assert f"{140 + 36 + 12 + 1} passed in" in found
        assert "examples: 500" in found

    def test_a_test_that_is_asked_for_by_name_is_run(self, file: Path):
        assert "1 passed in" in self.run(f"{file}::test_product[t-3]")

    def test_what_a_keyword_selects_has_a_diagonal_of_its_own(self, file: Path):
        # Twenty letters with one digit: no value occurs twice.
        assert f"20 passed, {189 - 20} deselected" in self.run("-k", "test_product and 3", file)
