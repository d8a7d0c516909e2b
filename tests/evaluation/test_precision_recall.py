import numpy as np
import pytest

from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import precision_recall


def normal(seed, n, d=8, scale=1.0, shift=0.0):
    return np.random.default_rng(seed).normal(shift, scale, (n, d)).astype(np.float32)


def line(*places):
    return np.array(places, float)[:, None]


def test_precision_and_recall_on_a_line():
    """Check 1-D points; the balls of the real points are [-1, 1], [0, 2] and [1, 7]."""
    real, generated = line(0, 1, 4), line(0.5, 2.5, 9)
    measured = precision_recall.precision_recall(real, generated, neighbors=1)
    # The points 0.5 and 2.5 are in balls of real points. The balls of generated points are [-1.5,
    # 2.5], [0.5, 4.5] and [2.5, 15.5].
    assert measured == pytest.approx((2 / 3, 1))
    assert precision_recall.precision_recall(generated, real, neighbors=1) == pytest.approx(
        (1, 2 / 3)
    )
    # Balls are closed: they include their boundary.
    assert precision_recall.precision_recall(line(0, 1), line(2, 2.1), neighbors=1) == (0.5, 0)


def test_more_neighbors_increase_precision_and_recall():
    real, generated = normal(0, 200), normal(1, 200)
    fractions = [
        precision_recall.precision_recall(real, generated, neighbors=k).precision
        for k in (1, 3, 10)
    ]
    assert fractions[0] < fractions[1] < fractions[2]


def test_samples_of_one_distribution_cover_each_other():
    measured = precision_recall.precision_recall(normal(0, 400), normal(1, 400))
    assert measured.precision == pytest.approx(measured.recall, abs=0.08)
    assert min(measured) > 0.6
    same = normal(0, 40)
    assert precision_recall.precision_recall(same, same) == (1, 1)
    assert precision_recall.precision_recall(same, same + 100) == (0, 0)


def test_bad_images_lower_precision_and_few_kinds_lower_recall():
    real, usual = normal(0, 400), precision_recall.precision_recall(normal(0, 400), normal(1, 400))
    wide = precision_recall.precision_recall(real, normal(1, 400, scale=2))
    narrow = precision_recall.precision_recall(real, normal(1, 400, scale=0.4))
    assert wide.precision < 0.5 * usual.precision
    assert narrow.recall < 0.5 * usual.recall
    assert narrow.precision > usual.precision


def test_memorization_matches_hand_computed_values():
    """Check distances to training: 1, 1, 1, 4 for held-out, 0.5, 0.5, 2 for generated images."""
    training, heldout = line(0, 10, 20), line(1, 11, 19, 24)
    measured = precision_recall.measure_memorization(
        line(0.5, 10.5, 22), training, heldout, percentile=50
    )
    assert measured == pytest.approx((0.5, 2 / 3))


def test_only_copies_count_as_memorized():
    training, heldout, new = (normal(seed, 1000) for seed in range(3))
    measured = precision_recall.measure_memorization(new, training, heldout)
    assert measured.nn_distance_ratio == pytest.approx(1, abs=0.05)
    assert measured.memorization_rate == pytest.approx(0.05, abs=0.025)
    assert precision_recall.measure_memorization(training[:50], training, heldout) == (0, 1)
    near = precision_recall.measure_memorization(
        training[:50] + normal(3, 50, scale=0.05), training, heldout
    )
    assert near.nn_distance_ratio < 0.2
    assert near.memorization_rate > 0.9
    half = precision_recall.measure_memorization(
        np.concatenate([training[:500], new[:500]]), training, heldout
    )
    assert half.memorization_rate == pytest.approx(0.525, abs=0.02)
    assert precision_recall.measure_memorization(new + 5, training, heldout).nn_distance_ratio > 2


def test_invalid_input_is_rejected():
    four = np.random.default_rng(0).random((4, 3))
    with pytest.raises(UserError, match="equal width"):
        precision_recall.precision_recall(four, four[:, :2])
    with pytest.raises(UserError, match="Give at least 4 vectors"):
        precision_recall.precision_recall(four, four[:3])
    with pytest.raises(UserError, match="neighbors=0"):
        precision_recall.precision_recall(four, four, neighbors=0)
    with pytest.raises(UserError, match="equal width"):
        precision_recall.measure_memorization(four, four, four[:, :2])
    with pytest.raises(UserError, match="Give at least 1 vectors"):
        precision_recall.measure_memorization(four[:0], four, four)
    with pytest.raises(UserError, match="heldout"):
        precision_recall.measure_memorization(four, four, four)
