import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.allocation import BitProgram
from mezzotint.errors import UsageError
from mezzotint.recipes.mixdq.protect import allocate_unprotected, protected

names = st.sampled_from("abcdefgh")


def test_the_lowest_scores_are_protected_lowest_first():
    assert protected({"a": 3.0, "b": 1.0, "c": 2.0, "d": 4.0}, 0.5) == ("b", "c")


@pytest.mark.parametrize(
    ("share", "layers", "count"),
    [(0.01, 374, 4), (0.01, 420, 5), (0.01, 700, 7), (0, 9, 0), (1, 9, 9), (0.001, 9, 1)],
)
def test_the_share_is_exact_and_rounded_up(share, layers, count):
    assert len(protected({str(i): float(i) for i in range(layers)}, share)) == count


def test_one_in_a_hundred_unless_said_otherwise():
    assert protected({str(i): float(i) for i in range(100)}) == ("0",)


@given(st.dictionaries(names, st.integers(0, 2).map(float)), st.floats(0, 1))
def test_ties_do_not_depend_on_the_order_of_the_layers(scores, share):
    assert protected(scores, share) == protected(dict(reversed(scores.items())), share)


@given(st.dictionaries(names, st.floats(-9, 9)), st.floats(0, 1))
def test_nothing_unprotected_scores_lower(scores, share):
    chosen = protected(scores, share)
    others = [score for name, score in scores.items() if name not in chosen]
    assert all(scores[name] <= score for name in chosen for score in others)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(UsageError, match="share: is"):
        protected({"a": 1.0}, share)


def test_a_score_that_is_no_number_is_named():
    with pytest.raises(UsageError, match="layer 'a', score: is nan"):
        protected({"a": float("nan")})


SCORES = {"a": {2: 0.0, 4: 5.0, 8: 6.0}, "b": {2: 0.0, 4: 1.0, 8: 9.0}, "c": {2: 1.0, 4: 2.0}}
PROGRAM = BitProgram(SCORES, {"a": 1, "b": 1, "c": 2})


def test_protected_layers_have_no_part_in_the_average_of_the_others():
    found, left_out = allocate_unprotected(PROGRAM, 6, share=0.3)
    assert left_out == ("c",)
    assert found == PROGRAM.without(["c"]).allocate(6)
    assert found.bits == {"a": 4, "b": 8}


def test_a_share_of_none_protects_none():
    found, left_out = allocate_unprotected(PROGRAM, 4, 0.5, share=0)
    assert left_out == ()
    assert found == PROGRAM.allocate(4, 0.5)


def test_a_share_that_leaves_no_layer_is_refused():
    with pytest.raises(UsageError, match=r"protect: a share of 0\.9 leaves no layer"):
        allocate_unprotected(PROGRAM, 4, share=0.9)
