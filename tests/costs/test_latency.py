"""The roofline, by hand where numbers are small, and in its two limits."""

import dataclasses
import itertools
import math

import pytest

from oneflow_jax.costs import chips, flops, latency, sizes, ways
from oneflow_jax.costs.ways import PROFILES

DOCUMENT = ways.DocumentShape(words=256, pictures=4, patches=256, codes=1_024)
V4 = chips.CHIPS["v4"]
SETTING = latency.Deployment(sizes.EIGHT_BILLION, DOCUMENT, batch=1, chip=V4)
FAST = chips.Chip(math.inf, 1.0, math.inf, math.inf, axes=3, clock=1e9)
"""Computes in no time, and reads a byte a second."""
WIDE = chips.Chip(1.0, math.inf, math.inf, math.inf, axes=3, clock=1e9)
"""Reads in no time, and multiplies or adds once a second."""
SMALL = latency.Deployment(sizes.ONE_BILLION, ways.DocumentShape(3, 1, 2, 4), batch=2, chip=FAST)

NAMES = list(PROFILES)
LEFT_TO_RIGHT = [name for name, way in PROFILES.items() if way.cached]
TOGETHER = [name for name, way in PROFILES.items() if not way.cached]


def seconds(name, passes=16, setting=SETTING, **changes):
    return latency.seconds(PROFILES[name], passes, dataclasses.replace(setting, **changes))


def test_bytes_by_hand():
    network = sizes.ONE_BILLION
    weights, slot = network.weights(1), network.kv_bytes_per_slot
    # Two rows: each slot that is in a cache is read in both; per document that is once.
    assert seconds("oneflow", 5, SMALL) == 5 * weights / 2
    # 3 words and 4 codes: 7 passes, that see 0 to 6 slots before them.
    assert seconds("chameleon", 5, SMALL) == 7 * weights / 2 + 21 * slot
    # 3 words that see 0 to 2, then 5 + 1 passes that see those 3.
    assert seconds("transfusion", 5, SMALL) == 9 * weights / 2 + (3 + 6 * 3) * slot
    assert seconds("lmfusion", 5, SMALL) == seconds("transfusion", 5, SMALL)


def test_flops_by_hand():
    network, setting = sizes.ONE_BILLION, dataclasses.replace(SMALL, chip=WIDE)
    words = sum(flops.forward(network, 1, keys) for keys in (1, 2, 3))
    picture = flops.forward(network, 2, keys=5)
    assert seconds("oneflow", 5, setting) == pytest.approx(5 * flops.forward(network, 5, keys=5))
    assert seconds("transfusion", 5, setting) == pytest.approx(words + 6 * picture)


def test_one_document_left_to_right_is_as_slow_as_its_weights_are_read():
    tokens = 256 + 4 * 1_024
    weights = tokens * sizes.EIGHT_BILLION.weights(1) / V4.bandwidth
    assert weights < seconds("chameleon") < 1.05 * weights


def test_many_documents_at_once_are_as_slow_as_they_are_computed():
    work = 16 * flops.forward(sizes.EIGHT_BILLION, DOCUMENT.slots, DOCUMENT.slots)
    for batch in (1, 64):
        assert seconds("oneflow", batch=batch) == pytest.approx(work / V4.peak)


@pytest.mark.parametrize("name", NAMES)
def test_two_chips_take_half_the_time(name):
    assert seconds(name, chips=2) == pytest.approx(seconds(name) / 2)


@pytest.mark.parametrize("name", NAMES)
def test_a_larger_batch_never_takes_longer_for_each_document(name):
    times = [seconds(name, batch=batch) for batch in (1, 8, 64, 512)]
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize("name", NAMES)
def test_more_never_takes_less(name):
    more = [
        {"document": dataclasses.replace(DOCUMENT, words=512)},
        {"document": dataclasses.replace(DOCUMENT, patches=512, codes=2_048)},
        {"document": dataclasses.replace(DOCUMENT, pictures=5)},
        {"passes": 32},
    ]
    for change in more:
        assert seconds(name, **change) >= seconds(name), change
    assert seconds(name, network=sizes.ONE_BILLION) < seconds(name)


def test_edit_flow_takes_twice_the_passes_and_a_head_more():
    assert 2 < seconds("edit_flow") / seconds("oneflow") < 2.2
    words = dataclasses.replace(DOCUMENT, pictures=0)
    assert 1 <= seconds("edit_flow", document=words) / seconds("oneflow", document=words) < 1.1


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("other", LEFT_TO_RIGHT)
@pytest.mark.parametrize("batch", [1, 64])
def test_overtaking_is_where_seconds_cross(name, other, batch):
    setting = dataclasses.replace(SETTING, batch=batch)
    limit = seconds(other, setting=setting)
    most = latency.crossover_nfe(PROFILES[name], limit, setting)
    assert seconds(name, most, setting) < limit <= seconds(name, most + 1, setting)


def test_nothing_overtakes_what_takes_no_longer_than_one_pass():
    one = seconds("oneflow", 1)
    assert latency.crossover_nfe(PROFILES["oneflow"], one, SETTING) is None
    assert latency.crossover_nfe(PROFILES["oneflow"], 1.5 * one, SETTING) == 1


def test_chips_needed_hold_weights_and_caches():
    def needed(name, **changes):
        return latency.min_chips(PROFILES[name], dataclasses.replace(SETTING, **changes))

    assert needed("oneflow") == needed("oneflow", batch=64) == 1
    # 15 GB of weights; 64 rows of 4,352 slots of 131 kB are 37 GB, beside 34 of one chip's.
    assert needed("chameleon") == 1
    assert needed("chameleon", batch=64) == 2
    v5e = chips.CHIPS["v5e"]
    assert needed("transfusion", chip=v5e) == 1
    assert needed("lmfusion", chip=v5e) == 2
