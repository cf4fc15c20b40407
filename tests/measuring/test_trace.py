"""Which modules may be replaced by their outputs, for which layer."""

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from mezzotint.measuring.trace import Trace, memory, trace
from mezzotint.models import Call
from tests.measuring import denoisers
from tests.measuring.restoring import assert_restored, state

CALL = Call((torch.ones(3, 4),), {})


def before(found: Trace, layer: str) -> list[str]:
    return [run.module for run in found.before(layer)]


class TestBefore:
    def test_finished_blocks_stand_for_their_children(self):
        found = trace(denoisers.Chain(), CALL)
        assert before(found, "first.0") == []
        assert before(found, "first.2") == ["first.0", "first.1"]
        assert before(found, "second.0") == ["first"]
        assert before(found, "second.2") == ["first", "second.0", "second.1"]

    def test_a_module_that_runs_several_times_counts_each_time(self):
        found = trace(denoisers.Shared(), CALL)
        assert before(found, "around") == ["twice", "twice"]

    def test_a_module_that_runs_again_later_is_computed(self):
        found = trace(denoisers.Shared(), CALL)
        assert before(found, "layer") == ["twice", "twice"]

    def test_runs_inside_a_finished_block_are_left_out(self):
        found = trace(denoisers.Nested(), CALL)
        assert before(found, "block.outer") == []
        assert before(found, "last") == ["alone", "block", "alone"]

    def test_a_layer_that_is_never_called_has_nothing_before_it(self):
        assert before(trace(denoisers.Bare(), CALL), "read") == []


class TestOpaque:
    @pytest.mark.parametrize("when", ["before", "after"])
    def test_modules_whose_output_is_written_to(self, when: str):
        found = trace(denoisers.ChangedOutput(when), CALL)
        assert found.opaque == {"block", "block.0", "block.1"}

    def test_modules_that_write_to_their_input_and_those_it_is_from(self):
        assert trace(denoisers.ChangedInput(), CALL).opaque == {"writer", "first"}

    def test_modules_that_return_unknown_objects(self):
        assert trace(denoisers.Secretive(), CALL).opaque == {"part"}

    def test_all_modules_where_writing_leaves_no_trace(self):
        with torch.inference_mode():
            assert "first" in trace(denoisers.Chain(), CALL).opaque

    def test_no_modules_on_a_call_that_was_recorded_in_inference_mode(self):
        with torch.inference_mode():
            call = Call((torch.ones(3, 4),), {})
        assert trace(denoisers.Chain(), call).opaque == frozenset()

    @pytest.mark.parametrize("kind", ["tuple", "list", "dict", "nested", "output"])
    def test_tensors_in_plain_containers_are_understood(self, kind: str):
        assert trace(denoisers.Returning(kind), CALL).opaque == frozenset()


def test_the_denoiser_is_left_as_it_was():
    chain = denoisers.Chain()
    kept = state(chain)
    trace(chain, CALL)
    assert_restored(chain, kept)


class _Forgetful(nn.Module):
    """Looks whether what one of its modules returned is still in memory after it let go of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.released: list[bool] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        reference = StorageWeakRef(self.layer(x).untyped_storage())
        self.released.append(reference.expired())
        return x


def test_watching_keeps_no_output_in_memory():
    denoiser = _Forgetful()
    trace(denoiser, CALL)
    assert denoiser.released == [True]


def test_shared_memory_is_counted_once():
    x = torch.zeros(10)
    assert memory([x, x[2:]], {"y": (x.view(2, 5), None)}) == 40
