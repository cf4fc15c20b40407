import pytest
import torch

from mezzotint.runtime.cuda import FloatKernel, Int8Kernel, tuning
from tests.runtime.layers import linear, noise, packed, run


def sizes(integer: bool, bucket: int, slot: int) -> list[dict[str, int]]:
    arguments = {"INTEGER": integer, "bucket": bucket, "slot_units": slot, "UNIT": 1}
    return [each.kwargs for each in tuning.suitable(tuning.CONFIGS, {}, **arguments)]


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("bucket", [2**power for power in range(4, 13)])
@pytest.mark.parametrize("slot", [1, 40, 160, 5000])
def test_every_shape_has_blocks_to_choose_from(integer: bool, bucket: int, slot: int):
    found = sizes(integer, bucket, slot)
    assert found
    assert all(each["BLOCK_K"] >= (32 if integer else 16) for each in found)


def test_few_pixels_are_not_measured_with_large_blocks():
    assert max(each["BLOCK_M"] for each in sizes(False, 16, 160)) == 16
    assert min(each["BLOCK_M"] for each in sizes(False, 4096, 160)) < 128


def test_buckets_are_powers_of_two_up_to_a_limit():
    assert [tuning.bucket(count) for count in (1, 16, 17, 77, 4000, 9000)] == [
        16,
        16,
        32,
        128,
        4096,
        4096,
    ]


@pytest.mark.parametrize("activation", ["float", "int8/token"])
def test_what_is_measured_is_the_launch_itself(activation: str, monkeypatch: pytest.MonkeyPatch):
    layer = packed(linear(256), "int4/channel", activation)
    kernel = FloatKernel() if activation == "float" else Int8Kernel()
    x = noise(40, 256)
    expected = run(kernel, layer, x)
    measured = []

    def measure(call, quantiles):
        call()
        measured.append(call)
        return [1.0] * len(quantiles)

    monkeypatch.setattr(tuning, "INTERPRETED", False)
    monkeypatch.setitem(vars(tuning._tuned), "do_bench", measure)
    assert torch.allclose(run(kernel, layer, x), expected, atol=1e-5)
    assert len(measured) > 1
    count = len(measured)
    run(kernel, layer, x)
    assert len(measured) == count
