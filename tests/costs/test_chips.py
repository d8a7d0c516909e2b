"""The table is in its units."""

import pytest

from oneflow_jax.costs import chips


@pytest.mark.parametrize("name", chips.CHIPS)
def test_figures_are_of_the_right_order(name):
    """A slip of a unit (bits, teraflops, gibibytes) would stand out."""
    chip = chips.CHIPS[name]
    assert 1e14 < chip.peak < 1e15
    assert 5e11 < chip.bandwidth < 5e12
    assert 1e10 < chip.memory < 2e11
    assert 1e11 < chip.interconnect < chip.bandwidth
    # FLOPs for each byte read, at which both take as long.
    assert 150 < chip.peak / chip.bandwidth < 600
