"""Tests of the units in the chip table."""

import pytest

from oneflow_jax.costs import chips


@pytest.mark.parametrize("name", chips.CHIPS)
def test_chip_values_have_the_right_order_of_magnitude(name):
    """Check orders of magnitude, to catch unit errors (bits, teraflops, gibibytes)."""
    chip = chips.CHIPS[name]
    assert 1e14 < chip.peak_flops < 1e15
    assert 5e11 < chip.hbm_bandwidth < 5e12
    assert 1e10 < chip.hbm_bytes < 2e11
    assert 1e11 < chip.ici_bandwidth < chip.hbm_bandwidth
    # FLOPs per byte at the ridge point of the roofline.
    assert 150 < chip.peak_flops / chip.hbm_bandwidth < 600
