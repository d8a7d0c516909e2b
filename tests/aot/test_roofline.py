"""Tests of step time estimates against values computed by hand."""

import pytest

from oneflow_jax.aot import roofline
from oneflow_jax.aot.collectives import Collective
from oneflow_jax.aot.op_costs import OpCosts
from oneflow_jax.costs.chips import Gpu, Tpu

CHIP = Tpu(
    peak_flops=100.0,
    hbm_bandwidth=10.0,
    hbm_bytes=1e9,
    ici_bandwidth=12.0,
    torus_dims=3,
    clock_hz=50.0,
)


def make_collective(num_bytes, num_slices=1):
    return Collective(
        "all-gather", 1, num_bytes, group_size=4, num_slices=num_slices, shape="f32[4]", path=""
    )


def test_compute_then_communication():
    """Check 3 s of compute, then 10 bytes at 12 / 3 / 2 = 2 bytes/s; the MFU is 200 / (4 x 800)."""
    work = OpCosts(flops=300.0, bytes=30.0, roofline_s=3.0, compiler_s=7.0)
    guess = roofline.estimate(
        work, [make_collective(4.0), make_collective(6.0)], CHIP, num_chips=4, model_flops=800.0
    )
    assert (guess.compute_s, guess.comm_s, guess.step_s) == (3.0, 5.0, 8.0)
    assert guess.mfu == pytest.approx(800 / 4 / 100 / 8)
    assert guess.compiler_s == 7.0
    assert guess.compiler_mfu == pytest.approx(800 / 4 / 100 / 12)


def test_slices_communicate_at_dcn_bandwidth():
    assert roofline.link_bandwidth(make_collective(1.0), CHIP) == 2.0
    assert roofline.link_bandwidth(make_collective(1.0, num_slices=2), CHIP) == CHIP.dcn_bandwidth


def test_gpus_have_a_roofline_but_no_cycle_estimates():
    """Check 3 s of compute, then 6 bytes over links of 4 bytes/s in both directions."""
    gpu = Gpu(100.0, 10.0, 1e9, link_bandwidth=4.0, network_bandwidth=0.5)
    work = OpCosts(flops=300.0, bytes=30.0, roofline_s=3.0, compiler_s=None)
    guess = roofline.estimate(work, [make_collective(6.0)], gpu, num_chips=4, model_flops=800.0)
    assert (guess.step_s, guess.compiler_s, guess.compiler_mfu) == (6.0, None, None)
    assert guess.mfu == pytest.approx(800 / 4 / 100 / 6)
    assert roofline.link_bandwidth(make_collective(1.0, num_slices=2), gpu) == 0.5
