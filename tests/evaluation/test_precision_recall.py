import numpy as np
import pytest

from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import precision_recall


def normal(seed, n, d=8, scale=1.0, shift=0.0):
    return np.random.default_rng(seed).normal(shift, scale, (n, d)).astype(np.float32)


def line(*places):
    return np.array(places, float)[:, None]


def test_precision_and_recall_on_a_line():
    """Balls of real ones reach to the neighbor: [-1, 1], [0, 2], [-3, 5]; of made ones likewise."""
    real, made = line(0, 1, 4), line(0.5, 2.5, 9)
    found = precision_recall.precision_recall(real, made, neighbors=1)
    # Made: 0.5 and 2.5 are in the real balls; real: [-1.5, 2.5], [0.5, 4.5], [2.5, 15.5].
    assert found == pytest.approx((2 / 3, 1))
    assert precision_recall.precision_recall(made, real, neighbors=1) == pytest.approx((1, 2 / 3))
    # The ball's edge belongs to it.
    assert precision_recall.precision_recall(line(0, 1), line(2, 2.1), neighbors=1) == (0.5, 0)


def test_more_neighbors_reach_farther():
    real, made = normal(0, 200), normal(1, 200)
    found = [
        precision_recall.precision_recall(real, made, neighbors=k).precision for k in (1, 3, 10)
    ]
    assert found[0] < found[1] < found[2]


def test_samples_of_one_source_are_in_each_other():
    found = precision_recall.precision_recall(normal(0, 400), normal(1, 400))
    assert found.precision == pytest.approx(found.recall, abs=0.08)
    assert min(found) > 0.6
    same = normal(0, 40)
    assert precision_recall.precision_recall(same, same) == (1, 1)
    assert precision_recall.precision_recall(same, same + 100) == (0, 0)


def test_bad_pictures_lose_precision_and_few_kinds_recall():
    real, usual = normal(0, 400), precision_recall.precision_recall(normal(0, 400), normal(1, 400))
    wide = precision_recall.precision_recall(real, normal(1, 400, scale=2))
    narrow = precision_recall.precision_recall(real, normal(1, 400, scale=0.4))
    assert wide.precision < 0.5 * usual.precision
    assert narrow.recall < 0.5 * usual.recall
    assert narrow.precision > usual.precision


def test_copies_by_hand():
    """Held-out: 1, 1, 1, 4 away from training; made: 0.5, 0.5, 2."""
    training, heldout = line(0, 10, 20), line(1, 11, 19, 24)
    found = precision_recall.measure_memorization(
        line(0.5, 10.5, 22), training, heldout, percentile=50
    )
    assert found == pytest.approx((0.5, 2 / 3))


def test_new_pictures_are_no_copies_and_copies_are():
    training, heldout, new = (normal(seed, 1000) for seed in range(3))
    found = precision_recall.measure_memorization(new, training, heldout)
    assert found.ratio == pytest.approx(1, abs=0.05)
    assert found.close == pytest.approx(0.05, abs=0.025)
    assert precision_recall.measure_memorization(training[:50], training, heldout) == (0, 1)
    near = precision_recall.measure_memorization(
        training[:50] + normal(3, 50, scale=0.05), training, heldout
    )
    assert near.ratio < 0.2
    assert near.close > 0.9
    half = precision_recall.measure_memorization(
        np.concatenate([training[:500], new[:500]]), training, heldout
    )
    assert half.close == pytest.approx(0.525, abs=0.02)
    assert precision_recall.measure_memorization(new + 5, training, heldout).ratio > 2


def test_what_cannot_be_compared():
    four = np.random.default_rng(0).random((4, 3))
    with pytest.raises(UserError, match="one width"):
        precision_recall.precision_recall(four, four[:, :2])
    with pytest.raises(UserError, match="Give 4 vectors"):
        precision_recall.precision_recall(four, four[:3])
    with pytest.raises(UserError, match="neighbors=0"):
        precision_recall.precision_recall(four, four, neighbors=0)
    with pytest.raises(UserError, match="one width"):
        precision_recall.measure_memorization(four, four, four[:, :2])
    with pytest.raises(UserError, match="Give 1 vectors"):
        precision_recall.measure_memorization(four[:0], four, four)
    with pytest.raises(UserError, match="heldout"):
        precision_recall.measure_memorization(four, four, four)
