"""Configurations drawn at random."""

import numpy as np
import pytest

from mezzotint.errors import UsageError
from mezzotint.labels import PUBLISHED_FORMATS, StoredSizes, sampled

KEYS = tuple(f"layer{index}" for index in range(40))
THREE, FOUR = PUBLISHED_FORMATS[:3], PUBLISHED_FORMATS[3:]


def sizes(formats=PUBLISHED_FORMATS, keys=KEYS):
    """Bytes as of layers of 64 × 64 weights or more."""
    weights = np.array([4096 * (1 + index % 7) for index in range(len(keys))])
    extra = {"kmeans3/channel": 0.3, "kmeans4/channel": 0.7, "uint3/channel": 0.1}
    bits = np.array(
        [int(name.strip("abcdefghijklmnopqrstuvwxyz/")) + extra.get(name, 0.02) for name in formats]
    )
    return StoredSizes((weights[:, None] * bits / 8).astype(np.int64), weights)


def indices(configurations, formats=PUBLISHED_FORMATS, keys=KEYS):
    return np.array([each.indices(keys, formats) for each in configurations])


def emptiest(values, bins=8):
    """Least count of a histogram over the range, as a share of an even one."""
    counts, _ = np.histogram(values, bins)
    return counts.min() * bins / len(values)


class TestPublished:
    def test_every_weight_has_a_format(self):
        for each in sampled(KEYS, PUBLISHED_FORMATS, 5):
            assert tuple(each) == KEYS
            assert {*each.values()} <= {*PUBLISHED_FORMATS}

    def test_three_bits_are_as_probable_as_a_number_drawn_from_0_to_1(self):
        drawn = indices(sampled(KEYS, PUBLISHED_FORMATS, 600))
        share = (drawn < 3).mean(1)
        assert share.mean() == pytest.approx(0.5, abs=0.05)
        # Uniform, and no binomial of one half, whose deviation is 0.08.
        assert share.std() == pytest.approx(12**-0.5, abs=0.04)
        assert emptiest(share, 5) > 0.7

    def test_methods_are_equally_likely_at_either_width(self):
        drawn = indices(sampled(KEYS, PUBLISHED_FORMATS, 400))
        shares = np.bincount(drawn.ravel(), minlength=6) / drawn.size
        assert shares == pytest.approx(np.full(6, 1 / 6), abs=0.02)

    def test_of_more_widths_the_lower_ones_go_together(self):
        formats = ("lut2/channel", "lut3/channel", "lut5/channel", "lut6/channel")
        drawn = indices(sampled(KEYS, formats, 400), formats)
        lower = drawn < 2
        assert lower.mean(1).std() == pytest.approx(12**-0.5, abs=0.05)
        assert (drawn[lower] == 0).mean() == pytest.approx(0.5, abs=0.03)

    def test_formats_of_one_width_are_all_equally_likely(self):
        drawn = indices(sampled(KEYS, THREE, 200), THREE)
        assert np.bincount(drawn.ravel()) / drawn.size == pytest.approx(np.full(3, 1 / 3), abs=0.03)


class TestStratified:
    def test_it_changes_the_histogram_of_stored_bits(self):
        spread = sizes()
        plain = spread.average(indices(sampled(KEYS, PUBLISHED_FORMATS, 200)))
        even = spread.average(indices(sampled(KEYS, PUBLISHED_FORMATS, 200, stratify=spread)))
        low = spread.average(spread.bytes.argmin(1))
        high = spread.average(spread.bytes.argmax(1))
        edges = np.linspace(low, high, 9)
        counts, plain_counts = (np.histogram(each, edges)[0] for each in (even, plain))
        assert counts.min() > 0.8 * 200 / 8
        assert plain_counts.min() < 0.2 * 200 / 8

    @pytest.mark.parametrize("count", [7, 40])
    def test_any_number_of_them_is_spread(self, count):
        spread = sizes()
        drawn = indices(sampled(KEYS, PUBLISHED_FORMATS, count, stratify=spread))
        gaps = np.diff(np.sort(spread.average(drawn)))
        assert gaps.max() < 4 * np.ptp(spread.average(drawn)) / count

    def test_formats_of_as_many_bytes_cannot_be_spread(self):
        same = StoredSizes(np.full((40, 2), 512), np.full(40, 1024))
        with pytest.raises(UsageError, match="stratify: all formats store as many bytes"):
            sampled(KEYS, ("int4/channel", "lut4/channel"), 3, stratify=same)


@pytest.mark.parametrize("stratify", [None, sizes()], ids=["published", "stratified"])
class TestBoth:
    def test_fewer_are_the_first_ones_of_more(self, stratify):
        more = sampled(KEYS, PUBLISHED_FORMATS, 30, 5, stratify=stratify)
        assert sampled(KEYS, PUBLISHED_FORMATS, 12, 5, stratify=stratify) == more[:12]

    def test_another_seed_gives_others(self, stratify):
        one, other = (
            {*sampled(KEYS, PUBLISHED_FORMATS, 20, seed, stratify=stratify)} for seed in (0, 1)
        )
        assert not one & other

    def test_no_two_are_equal(self, stratify):
        keys, formats = KEYS[:2], PUBLISHED_FORMATS[:2]
        few = None if stratify is None else sizes(formats, keys)
        assert len({*sampled(keys, formats, 4, stratify=few)}) == 4
        with pytest.raises(UsageError, match="5 different configurations of 2 weights and 2"):
            sampled(keys, formats, 5, stratify=few)


def test_bits_are_of_all_weights_together():
    some = StoredSizes(np.array([[100, 200], [10, 30]]), np.array([300, 100]))
    assert some.average(np.array([[0, 1], [1, 0]])) == pytest.approx([130 / 50, 210 / 50])
    assert some.bits == pytest.approx(np.array([[800 / 300, 1600 / 300], [0.8, 2.4]]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((), PUBLISHED_FORMATS, 3), "one weight and one format"),
        ((KEYS, (), 3), "one weight and one format"),
        ((KEYS, PUBLISHED_FORMATS, 0), "count 0"),
        ((KEYS, PUBLISHED_FORMATS, 3, -1), "seed -1"),
        ((KEYS, ("float", "int4/channel"), 3), "'float' quantizes nothing"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        sampled(*arguments)
