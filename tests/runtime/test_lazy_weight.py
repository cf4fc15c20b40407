"""A weight that is dequantized while it is read, and never kept."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from mezzotint.errors import UsageError
from mezzotint.runtime.lazy_weight import LazyWeight

VALUES = torch.arange(6.0).view(2, 3)


class Counting:
    """Dequantizes, and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> Tensor:
        self.count += 1
        return VALUES.clone()


@pytest.fixture
def dequantize() -> Counting:
    return Counting()


@pytest.fixture
def weight(dequantize: Counting) -> LazyWeight:
    return LazyWeight((2, 3), torch.float32, torch.device("cpu"), dequantize)


def test_shape_dtype_and_device_cost_nothing(weight: LazyWeight, dequantize: Counting):
    assert (weight.shape, weight.dtype, weight.device.type) == ((2, 3), torch.float32, "cpu")
    assert (weight.numel(), weight.ndim, weight.is_floating_point()) == (6, 2, True)
    assert repr(weight) == "LazyWeight((2, 3), dtype=torch.float32, device=cpu)"
    assert not weight.requires_grad
    assert dequantize.count == 0


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda w: w + 0, id="arithmetic"),
        pytest.param(lambda w: w.clone(), id="clone"),
        pytest.param(lambda w: w.detach() * 1, id="detach"),
        pytest.param(lambda w: w.data * 1, id="data"),
        pytest.param(lambda w: w.to(torch.float64).float(), id="to"),
        pytest.param(lambda w: w.T.T + 0, id="transpose"),
        pytest.param(lambda w: w[:] + 0, id="index"),
        pytest.param(lambda w: nn.functional.linear(torch.eye(3), w).T, id="linear"),
        pytest.param(copy.deepcopy, id="deepcopy"),
        pytest.param(lambda w: pickle.loads(pickle.dumps(w)), id="pickle"),
    ],
)
def test_reading_gives_an_ordinary_tensor(read, weight: LazyWeight, dequantize: Counting):
    found = read(weight)
    assert type(found) is Tensor
    assert torch.equal(found, VALUES)
    assert dequantize.count == 1


def test_views_keep_their_strides_and_cost_nothing(weight: LazyWeight, dequantize: Counting):
    rows, turned = weight.unbind(), weight.T
    assert [row.shape for row in rows] == [(3,), (3,)]
    assert (turned.shape, turned.stride()) == ((3, 2), (1, 3))
    assert dequantize.count == 0
    assert torch.equal(torch.stack(rows), VALUES)
    assert torch.equal(turned.reshape(-1), VALUES.T.reshape(-1))


def test_every_reading_dequantizes_anew(weight: LazyWeight, dequantize: Counting):
    weight.sum(), weight.sum()
    assert dequantize.count == 2


def _assign(weight: LazyWeight) -> None:
    weight.data = torch.zeros(2, 3)


def _put(weight: LazyWeight) -> None:
    weight[0, 0] = 1


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda w: w.add_(1), id="in place"),
        pytest.param(lambda w: w.data.add_(1), id="data in place"),
        pytest.param(lambda w: w.copy_(torch.zeros(2, 3)), id="copy"),
        pytest.param(nn.init.zeros_, id="init"),
        pytest.param(lambda w: torch.add(VALUES, 1, out=w), id="out"),
        pytest.param(_assign, id="assigned data"),
        pytest.param(lambda w: w[0].zero_(), id="a row"),
        pytest.param(lambda w: w.data[0].fill_(5), id="a row of data"),
        pytest.param(lambda w: w.view(-1).zero_(), id="a view"),
        pytest.param(lambda w: w.chunk(2)[1].zero_(), id="a chunk"),
        pytest.param(_put, id="an item"),
    ],
)
def test_writing_is_refused_with_the_remedy(write, weight: LazyWeight):
    with pytest.raises(UsageError, match=r"read only.*dequantize\(\)"):
        write(weight)
