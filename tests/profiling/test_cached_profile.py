import json

import pytest
from torch import nn

import mezzotint as mz
from mezzotint.errors import FormatError, JournalError, UsageError
from mezzotint.plan import Choice
from mezzotint.profiling import (
    Machine,
    Timer,
    Work,
    attention_of,
    cache_file,
    candidates,
    profile_pipeline,
)
from mezzotint.runtime import use_fast_attention
from tests import journals
from tests.profiling.conftest import CHOICES
from tests.profiling.ticking import FLOAT, Clock, ClockStoppedError, seconds, ticking


def stopped() -> Clock:
    """A clock that must not be read."""
    clock = Clock()
    clock.most_readings = 0
    return clock


def profiled(pipe, path, clock, **options):
    timer = Timer(repeats=1, most=1, clock=clock)
    return profile_pipeline(pipe, choices=CHOICES, cache=path, timer=timer, **options)


def test_a_second_run_measures_nothing(pipe, profile, tmp_path):
    again = profiled(pipe, tmp_path / "cache.jsonl", stopped())
    assert again == profile


def test_an_interrupted_run_goes_on_where_it_stopped(pipe, clock, tmp_path):
    path = tmp_path / "cache.jsonl"
    whole = profiled(pipe, tmp_path / "whole.jsonl", clock)
    readings = clock.readings
    clock.readings, clock.most_readings = 0, readings // 2
    with pytest.raises(ClockStoppedError):
        profiled(pipe, path, clock)
    before = path.read_text().splitlines()
    assert 1 < len(before) < len((tmp_path / "whole.jsonl").read_text().splitlines())
    clock.readings, clock.most_readings = 0, readings
    resumed = profiled(pipe, path, clock)
    assert path.read_text().splitlines()[: len(before)] == before
    assert 0 < clock.readings < readings
    assert resumed == whole


def test_an_interruption_says_where_times_are_kept(pipe, clock, tmp_path):
    def interrupted() -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        profiled(pipe, tmp_path / "cache.jsonl", interrupted)
    assert "cache.jsonl; repeat the command" in caught.value.__notes__[0]


def test_without_a_place_in_the_cache_a_profile_is_not_kept(
    pipe, profile, clock, tmp_path, monkeypatch
):
    place = tmp_path / "file"
    place.write_text("a file")
    monkeypatch.setenv("MEZZOTINT_CACHE", str(place))
    assert profiled(pipe, None, clock).milliseconds == profile.milliseconds
    with pytest.raises(OSError, match="file"):
        profiled(pipe, place / "named.jsonl", clock)


def test_an_interruption_tells_of_no_file_where_none_is_kept(pipe, tmp_path, monkeypatch):
    def interrupted() -> float:
        raise KeyboardInterrupt

    (tmp_path / "file").write_text("a file")
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "file"))
    with pytest.raises(KeyboardInterrupt) as caught:
        profiled(pipe, None, interrupted)
    assert not hasattr(caught.value, "__notes__")


def test_later_choices_are_put_in_proportion_to_the_floating_layer(pipe, profile, tmp_path):
    more = (*CHOICES, Choice("int2/channel", "int8/token"))
    with ticking(lambda module: 3 * seconds(module)) as slower:
        timer = Timer(repeats=1, most=1, clock=slower)
        found = profile_pipeline(pipe, choices=more, cache=tmp_path / "cache.jsonl", timer=timer)
    figures = found.layers["conv_in"].figures
    assert figures[more[-1]].milliseconds == pytest.approx(1e3 * FLOAT / 8)
    assert set(slower.ran) == {more[-1]}


def test_fresh_measures_again(pipe, profile, tmp_path):
    with ticking(lambda module: 2 * seconds(module)) as slower:
        found = profiled(pipe, tmp_path / "cache.jsonl", slower, fresh=True)
    assert found.milliseconds == 2 * profile.milliseconds


def test_a_cache_of_another_machine_is_refused(pipe, profile, tmp_path):
    path = tmp_path / "cache.jsonl"

    def elsewhere(header, entries):
        header["machine"]["threads"] += 1
        return entries

    journals.edit(path, elsewhere)
    with pytest.raises(JournalError, match="was begun with machine"):
        profiled(pipe, path, stopped())


def test_without_a_file_the_cache_is_the_users(pipe, timer, tmp_path, monkeypatch):
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path))
    first = profile_pipeline(pipe, choices=CHOICES[:1], timer=timer)
    (path,) = (tmp_path / "profiles").glob("*.jsonl")
    again = profile_pipeline(
        pipe, choices=CHOICES[:1], timer=Timer(repeats=1, most=1, clock=stopped())
    )
    assert again == first
    assert json.loads(path.read_text().splitlines()[0])["header"]["machine"] == (
        Machine.here().to_dict()
    )


def test_another_version_has_a_cache_of_its_own(monkeypatch):
    """Which would refuse the figures of this one."""
    ours = cache_file({"batch": 1})
    assert cache_file({"batch": 1}) == ours
    monkeypatch.setattr("mezzotint.profiling.cached_profile.VERSION", "9.9.9")
    assert cache_file({"batch": 1}) != ours


def test_a_quantized_pipeline_is_refused(pipe, tmp_path):
    packed = mz.apply(pipe, mz.uniform_plan(pipe.unet, weight_bits=8))
    with pytest.raises(UsageError, match="profile the original"):
        profile_pipeline(packed.pipeline, cache=tmp_path / "cache")


def test_a_compiled_pipeline_is_refused(pipe, tmp_path):
    pytest.importorskip("openvino")
    fast = mz.with_engine(pipe, "openvino")
    with pytest.raises(UsageError, match="compiled by openvino"):
        profiled(fast, tmp_path / "cache.jsonl", stopped())


def test_what_runs_between_the_layers_is_other_work(pipe, profile, clock, tmp_path):
    pipe.unet.register_to_config(center_input_sample=True)
    with pytest.raises(JournalError, match="begun with work"):
        profiled(pipe, tmp_path / "cache.jsonl", clock)


@pytest.mark.parametrize("value", ["abc", float("nan"), -3, None])
@pytest.mark.parametrize("field", ["milliseconds", "layers"])
def test_figures_that_are_no_times_are_refused(pipe, profile, tmp_path, field, value):
    path = tmp_path / "cache.jsonl"

    def damaged(_, entries):
        dict(entries)["denoiser"][field] = value
        return entries

    journals.edit(path, damaged)
    with pytest.raises(JournalError, match=f"denoiser'?: {field} is"):
        profiled(pipe, path, stopped())


def test_fresh_deletes_nothing_but_journals(pipe, tmp_path):
    (tmp_path / "notes.txt").write_text("dear diary")
    with pytest.raises(JournalError, match=r"notes\.txt"):
        profiled(pipe, tmp_path / "notes.txt", stopped(), fresh=True)
    assert (tmp_path / "notes.txt").read_text() == "dear diary"


def test_an_empty_batch_is_refused(pipe, tmp_path):
    with pytest.raises(UsageError, match="batch"):
        profile_pipeline(pipe, Work(batch=0), cache=tmp_path / "cache")


def test_the_pipeline_is_left_as_it_was(pipe, profile):
    assert not any(module._forward_pre_hooks for module in pipe.unet.modules())


def test_candidates_are_all_pairs():
    assert candidates(["int4/channel", "float"], ["float", "int8/token"]) == (
        Choice("int4/channel"),
        Choice("int4/channel", "int8/token"),
    )


def test_unknown_formats_are_refused():
    with pytest.raises(UsageError, match="nonsense"):
        candidates(["nonsense"], ["float"])
    assert not issubclass(UsageError, FormatError)


def test_the_back_end_of_attention_is_part_of_the_work():
    class Processor:
        _attention_backend = None

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.processor = Processor()

        def set_processor(self, processor):
            self.processor = processor

    layer = Layer()
    before = attention_of(layer)
    use_fast_attention(layer)
    assert attention_of(layer) != before
    use_fast_attention(layer, enabled=False)
    assert attention_of(layer) == before
