"""Features: the method, bits, size, error and place of every node."""

import pytest
import torch

from mezzotint.errors import FormatError
from mezzotint.models import CombineNode
from mezzotint.predictors.features import NodeFeatures, method_and_bits
from tests.predictors.planted import FORMATS, dataset_of, transformer

GRAPH, _ = transformer(2)
DATASET = dataset_of(GRAPH, 30)
FEATURES = NodeFeatures.of(DATASET)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kmeans3/channel", ("kmeans/channel", 3)),
        ("kmeans4/tensor", ("kmeans/tensor", 4)),
        ("uint3/channel", ("uint/channel", 3)),
        ("int8/group64", ("int/group64", 8)),
        ("lut2/channel", ("lut/channel", 2)),
        ("mixed/int2:16,int3:16", ("mixed", 2.5)),
        ("float", ("float", 16)),
    ],
)
def test_a_format_is_a_method_with_bits(name, expected):
    assert method_and_bits(name) == expected


def test_an_unknown_format_is_refused():
    with pytest.raises(FormatError, match="unknown weight format 'kmeans/3'"):
        method_and_bits("kmeans/3")


def test_formats_of_one_method_or_width_share_a_category():
    node = GRAPH.weights[0].index
    methods, bits = FEATURES.categories[node, :, 0], FEATURES.categories[node, :, 1]
    for first, name in enumerate(FORMATS):
        for second, other in enumerate(FORMATS):
            mine, theirs = method_and_bits(name), method_and_bits(other)
            assert (methods[first] == methods[second]) == (mine[0] == theirs[0])
            assert (bits[first] == bits[second]) == (mine[1] == theirs[1])


def test_combine_nodes_are_all_alike_under_every_choice():
    combined = [node.index for node in GRAPH.nodes if isinstance(node, CombineNode)]
    for table in (FEATURES.categories, FEATURES.numbers):
        rows = table[combined].flatten(0, 1)
        assert (rows == rows[0]).all()
    roles = {int(FEATURES.categories[node.index, 0, 2]) for node in GRAPH.weights}
    assert int(FEATURES.categories[combined[0], 0, 2]) not in roles


def test_weights_without_a_choice_are_the_same_under_every_format():
    graph, _ = transformer(1, free_input=False)
    features = NodeFeatures.of(dataset_of(graph, 30))
    assert (features.categories[0] == features.categories[0, :1]).all()
    assert (features.numbers[0] == features.numbers[0, :1]).all()


def test_numbers_are_size_and_error_in_units_of_their_spread():
    slots = [node.index for node in GRAPH.weights]
    found = FEATURES.numbers[slots].double()
    sizes = torch.tensor([node.weights for node in GRAPH.weights], dtype=torch.float64)
    ratio = 200 * sizes[:, None] / torch.from_numpy(DATASET.bytes)
    expected = torch.stack([ratio, 100 * torch.from_numpy(DATASET.weight_errors)], 2)
    for column in range(2):
        pairs = torch.stack([found[..., column].flatten(), expected[..., column].flatten()])
        assert torch.corrcoef(pairs)[0, 1] > 0.999999
        torch.testing.assert_close(found[..., column].std(unbiased=False).item(), 1.0)


def test_only_parts_of_the_block_code_that_differ_are_columns():
    assert len(FEATURES.sizes) == 4  # method, bits, layer type, number of the block
    assert FEATURES.sizes[3] == 3
