"""Tests of roofline latency: memory-bound and compute-bound cases against values by hand."""

import dataclasses
import itertools
import math

import pytest

from oneflow_jax.costs import chips, flops, generation, latency, model_sizes
from oneflow_jax.costs.generation import PROFILES

DOCUMENT = generation.DocumentShape(
    num_text_tokens=256, num_images=4, patches_per_image=256, codes_per_image=1_024
)
V4 = chips.CHIPS["v4"]
SETTING = latency.Deployment(model_sizes.EIGHT_BILLION, DOCUMENT, batch=1, chip=V4)
FAST = chips.Tpu(math.inf, 1.0, math.inf, math.inf, torus_dims=3, clock_hz=1e9)
"""A chip limited by memory bandwidth only: 1 byte/s."""
WIDE = chips.Tpu(1.0, math.inf, math.inf, math.inf, torus_dims=3, clock_hz=1e9)
"""A chip limited by compute only: 1 FLOP/s."""
SMALL = latency.Deployment(
    model_sizes.ONE_BILLION, generation.DocumentShape(3, 1, 2, 4), batch=2, chip=FAST
)

NAMES = list(PROFILES)
LEFT_TO_RIGHT = [name for name, way in PROFILES.items() if way.uses_kv_cache]
TOGETHER = [name for name, way in PROFILES.items() if not way.uses_kv_cache]


def seconds(name, passes=16, setting=SETTING, **changes):
    return latency.seconds(PROFILES[name], passes, dataclasses.replace(setting, **changes))


def test_memory_bound_latency_matches_hand_count():
    network = model_sizes.ONE_BILLION
    weights, slot = network.weight_bytes(1), network.kv_bytes_per_slot
    # A pass over a batch of two documents reads the weights once, and one cache per document.
    assert seconds("oneflow", 5, SMALL) == 5 * weights / 2
    # 3 text tokens and 4 image codes: 7 passes with 0 to 6 cached slots.
    assert seconds("chameleon", 5, SMALL) == 7 * weights / 2 + 21 * slot
    # 3 text passes with 0 to 2 cached slots, then 5 + 1 passes with these 3.
    assert seconds("transfusion", 5, SMALL) == 9 * weights / 2 + (3 + 6 * 3) * slot
    assert seconds("lmfusion", 5, SMALL) == seconds("transfusion", 5, SMALL)


def test_compute_bound_latency_matches_hand_count():
    network, setting = model_sizes.ONE_BILLION, dataclasses.replace(SMALL, chip=WIDE)
    words = sum(flops.forward(network, 1, keys) for keys in (1, 2, 3))
    picture = flops.forward(network, 2, keys=5)
    assert seconds("oneflow", 5, setting) == pytest.approx(5 * flops.forward(network, 5, keys=5))
    assert seconds("transfusion", 5, setting) == pytest.approx(words + 6 * picture)


def test_single_autoregressive_document_is_bound_by_reading_weights():
    tokens = 256 + 4 * 1_024
    weights = tokens * model_sizes.EIGHT_BILLION.weight_bytes(1) / V4.hbm_bandwidth
    assert weights < seconds("chameleon") < 1.05 * weights


def test_large_batch_is_bound_by_compute():
    work = 16 * flops.forward(model_sizes.EIGHT_BILLION, DOCUMENT.num_slots, DOCUMENT.num_slots)
    for batch in (1, 64):
        assert seconds("oneflow", batch=batch) == pytest.approx(work / V4.peak_flops)


@pytest.mark.parametrize("name", NAMES)
def test_two_chips_take_half_the_time(name):
    assert seconds(name, num_chips=2) == pytest.approx(seconds(name) / 2)


@pytest.mark.parametrize("name", NAMES)
def test_a_larger_batch_never_takes_longer_for_each_document(name):
    times = [seconds(name, batch=batch) for batch in (1, 8, 64, 512)]
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize("name", NAMES)
def test_latency_increases_with_document_and_nfe(name):
    more = [
        {"document": dataclasses.replace(DOCUMENT, num_text_tokens=512)},
        {"document": dataclasses.replace(DOCUMENT, patches_per_image=512, codes_per_image=2_048)},
        {"document": dataclasses.replace(DOCUMENT, num_images=5)},
        {"passes": 32},
    ]
    for change in more:
        assert seconds(name, **change) >= seconds(name), change
    assert seconds(name, network=model_sizes.ONE_BILLION) < seconds(name)


def test_edit_flow_takes_twice_the_nfe_and_one_more_head():
    assert 2 < seconds("edit_flow") / seconds("oneflow") < 2.2
    words = dataclasses.replace(DOCUMENT, num_images=0)
    assert 1 <= seconds("edit_flow", document=words) / seconds("oneflow", document=words) < 1.1


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("slower", LEFT_TO_RIGHT)
@pytest.mark.parametrize("batch", [1, 64])
def test_crossover_nfe_is_where_latencies_cross(name, slower, batch):
    setting = dataclasses.replace(SETTING, batch=batch)
    limit = seconds(slower, setting=setting)
    most = latency.crossover_nfe(PROFILES[name], limit, setting)
    assert seconds(name, most, setting) < limit <= seconds(name, most + 1, setting)


def test_crossover_nfe_is_none_up_to_the_time_of_one_pass():
    one = seconds("oneflow", 1)
    assert latency.crossover_nfe(PROFILES["oneflow"], one, SETTING) is None
    assert latency.crossover_nfe(PROFILES["oneflow"], 1.5 * one, SETTING) == 1


def test_chips_needed_hold_weights_and_caches():
    def chips_needed(name, **changes):
        return latency.min_chips(PROFILES[name], dataclasses.replace(SETTING, **changes))

    assert chips_needed("oneflow") == chips_needed("oneflow", batch=64) == 1
    # Weights take 15 GB; 64 rows x 4,352 slots x 131 kB are 37 GB. A chip has 34 GB.
    assert chips_needed("chameleon") == 1
    assert chips_needed("chameleon", batch=64) == 2
    v5e = chips.CHIPS["v5e"]
    assert chips_needed("transfusion", chip=v5e) == 1
    assert chips_needed("lmfusion", chip=v5e) == 2
