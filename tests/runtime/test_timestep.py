"""The timestep of a denoiser's call reaches its layers, and nothing of another call does."""

import copy
import pickle
import threading
from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mezzotint.errors import UsageError
from mezzotint.runtime import TimestepReader, dequantize_module, nearest_step
from tests.runtime.stepped import TIMESTEPS, Denoiser, batch, packed_denoiser


class Watching(nn.Module):
    """Returns the timestep that a reader holds while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = TimestepReader()

    def forward(
        self, sample: Tensor, text: Tensor | None = None, timestep: object = None
    ) -> Tensor:
        return self.reader.timestep


@pytest.fixture
def watching() -> Watching:
    module = Watching()
    module.reader = TimestepReader.attach(module)
    return module


X = torch.zeros(2, 1)


class TestReading:
    @pytest.mark.parametrize(
        ("given", "read"),
        [
            (999, [999.0]),
            (0.25, [0.25]),
            (torch.tensor(999), [999.0]),
            (torch.tensor(0.25, dtype=torch.float64), [0.25]),
            (torch.tensor([7]), [7.0]),
            (torch.tensor([7, 8]), [7.0, 8.0]),
            (torch.tensor([[7], [8]]), [7.0, 8.0]),
            (torch.tensor([0.5, 1.0], dtype=torch.bfloat16), [0.5, 1.0]),
        ],
        ids=["int", "float", "scalar", "float64", "one", "each", "column", "bfloat16"],
    )
    @pytest.mark.parametrize("keyword", [True, False], ids=["keyword", "positional"])
    def test_whatever_form_it_has(
        self, watching: Watching, given: object, read: list[float], keyword: bool
    ):
        found = watching(X, timestep=given) if keyword else watching(X, None, given)
        assert found.dtype == torch.float32
        assert found.tolist() == read

    def test_no_call_finds_that_of_another(self, watching: Watching):
        assert [watching(X, timestep=t).item() for t in (5, 900, 5)] == [5.0, 900.0, 5.0]
        with pytest.raises(UsageError, match="run without one"):
            watching.reader.timestep  # noqa: B018 - asking is what is tested
        with pytest.raises(UsageError, match="run without one"):
            watching(X)

    def test_nor_after_one_that_failed(self, watching: Watching):
        class Failing(Watching):
            def forward(self, sample: Tensor, timestep: object = None) -> Tensor:
                raise ArithmeticError

        failing = Failing()
        reader = TimestepReader.attach(failing)
        with suppress(ArithmeticError):
            failing(X, 5)
        with pytest.raises(UsageError, match="run without one"):
            reader.timestep  # noqa: B018

    def test_a_timestep_for_each_token_is_refused(self, watching: Watching):
        with pytest.raises(UsageError, match=r"shape \(2, 3\).*one timestep for each sample"):
            watching(X, timestep=torch.zeros(2, 3))

    def test_another_thread_is_not_served(self, watching: Watching):
        watching.reader._hold(torch.ones(1))
        errors = []

        def read() -> None:
            try:
                watching.reader.timestep  # noqa: B018
            except UsageError as error:
                errors.append(str(error))

        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        assert "two threads" in errors[0]

    def test_it_can_be_held_for_layers_that_run_alone(self, watching: Watching):
        with watching.reader.holding(3):
            with watching.reader.holding(torch.tensor([4.0, 5.0])):
                assert watching.reader.timestep.tolist() == [4.0, 5.0]
            assert watching.reader.timestep.tolist() == [3.0]


class TestAttaching:
    def test_a_denoiser_has_one_reader(self):
        denoiser = Denoiser()
        assert TimestepReader.of(denoiser) is None
        reader = TimestepReader.attach(denoiser)
        assert TimestepReader.attach(denoiser) is reader
        assert TimestepReader.of(denoiser) is reader
        assert len(denoiser._forward_pre_hooks) == 1

    def test_for_a_while_leaves_no_trace(self):
        denoiser = Denoiser()
        with TimestepReader.reading(denoiser) as reader:
            assert TimestepReader.of(denoiser) is reader
            with TimestepReader.reading(denoiser) as inner:
                assert inner is reader
            assert TimestepReader.of(denoiser) is reader
        assert not denoiser._forward_pre_hooks
        assert not denoiser._forward_hooks

    def test_a_module_without_a_timestep_is_refused(self):
        with pytest.raises(UsageError, match=r"Linear is called without a timestep.*uint8/tensor"):
            TimestepReader.attach(nn.Linear(2, 2))

    @pytest.mark.parametrize(
        "copied",
        [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))],
        ids=["deepcopy", "pickle"],
    )
    def test_a_copy_has_its_own(self, copied):
        denoiser = packed_denoiser()
        twin = copied(denoiser)
        reader = TimestepReader.of(twin)
        assert reader is not None
        assert reader is not TimestepReader.of(denoiser)
        assert twin.linear.reader is twin.conv.reader is reader
        x = batch()
        assert torch.equal(twin(x, 900), denoiser(x, 900))
        assert not torch.equal(twin(x, 10), denoiser(x, 900))

    def test_dequantizing_removes_it(self):
        plain = dequantize_module(packed_denoiser())
        assert TimestepReader.of(plain) is None
        assert not plain._forward_hooks


class TestNearest:
    def test_of_two_equally_near_it_is_the_lower(self):
        found = nearest_step(torch.tensor([0.0, 10.0, 20.0]), torch.tensor([5.0, 15.0, 15.1]))
        assert found.tolist() == [0, 1, 2]

    def test_beyond_the_ends_it_is_the_last(self):
        assert nearest_step(torch.tensor(TIMESTEPS), torch.tensor([-5.0, 1e6])).tolist() == [0, 2]

    def test_a_single_one_is_always_nearest(self):
        assert nearest_step(torch.tensor([3.0]), torch.tensor([0.0, 3.0, 9.0])).tolist() == [0] * 3

    @given(
        known=st.sets(st.integers(0, 1000), min_size=1, max_size=30),
        t=st.lists(st.integers(-50, 1100), min_size=1, max_size=5),
    )
    def test_none_is_nearer(self, known: set[int], t: list[int]):
        steps = sorted(known)
        found = nearest_step(torch.tensor(steps).float(), torch.tensor(t).float())
        expected = [min(range(len(steps)), key=lambda i: abs(steps[i] - each)) for each in t]
        assert found.tolist() == expected
