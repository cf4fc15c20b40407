"""Labels in numbers: shapes, stored bits, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from mezzotint.errors import PredictorError
from tests.predictors.planted import FORMATS, dataset_of, transformer, with_values

GRAPH, BLOCKS = transformer(1)
DATASET = dataset_of(GRAPH, 30)


def test_stored_bits_are_all_bytes_over_all_weights():
    rows = DATASET.configurations[:2]
    taken = [sum(DATASET.bytes[node, choice] for node, choice in enumerate(row)) for row in rows]
    expected = np.array(taken) * 8 / sum(node.weights for node in GRAPH.weights)
    np.testing.assert_allclose(DATASET.stored_bits(rows), expected)


def test_weights_that_cannot_be_quantized_have_no_column():
    graph, _ = transformer(1, free_input=False)
    found = dataset_of(graph, 30)
    assert found.configurations.shape[1] == len(graph.weights) - 1
    assert "proj_in" not in found.space.keys


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bytes": DATASET.bytes[:, :5]}, r"bytes: shape \[8, 5\]; expected 8 .* 6 formats"),
        ({"bytes": np.zeros_like(DATASET.bytes)}, "bytes: a choice takes none"),
        ({"weight_errors": DATASET.weight_errors * np.nan}, "weight_errors: is nan at node 0"),
        ({"noises": -DATASET.noises}, "noises: is -.* expected 0 or more"),
        ({"values": DATASET.values[:-1]}, r"values: shape \[29\]; expected one for each of the 30"),
        ({"configurations": DATASET.configurations[:, 1:]}, r"int64 of shape \[30, 7\]"),
        ({"configurations": DATASET.configurations * 1.0}, "float64 of shape"),
        ({"configurations": DATASET.configurations + 1}, "gives .* the format 6; there are 0 to 5"),
        ({"formats": ()}, "nothing can be chosen"),
    ],
)
def test_malformed_arrays_are_refused(changed, message):
    with pytest.raises(PredictorError, match=message):
        replace(DATASET, **changed)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_label_that_is_not_finite_is_named(bad):
    values = DATASET.values.copy()
    values[7] = bad
    with pytest.raises(PredictorError, match=rf"label 7 is {bad} \(1 of 30 .* measure it again"):
        with_values(DATASET, values)


def test_formats_keep_their_order():
    assert DATASET.space.formats == FORMATS
