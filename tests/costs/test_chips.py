"""Tests of the units in the chip table."""

import pytest

from oneflow_jax.costs import chips

TPUS = [name for name, chip in chips.CHIPS.items() if isinstance(chip, chips.Tpu)]
GPUS = [name for name, chip in chips.CHIPS.items() if isinstance(chip, chips.Gpu)]


@pytest.mark.parametrize("name", TPUS)
def test_tpu_values_have_the_right_order_of_magnitude(name):
    """Check orders of magnitude, to catch unit errors (bits, teraflops, gibibytes)."""
    chip = chips.CHIPS[name]
    assert 1e14 < chip.peak_flops < 1e15
    assert 5e11 < chip.hbm_bandwidth < 5e12
    assert 1e10 < chip.hbm_bytes < 2e11
    assert 1e11 < chip.ici_bandwidth < chip.hbm_bandwidth
    assert chip.dcn_bandwidth < chip.ring_bandwidth < chip.ici_bandwidth
    # FLOPs per byte at the ridge point of the roofline.
    assert 150 < chip.peak_flops / chip.hbm_bandwidth < 600


@pytest.mark.parametrize("name", GPUS)
def test_gpu_values_have_the_right_order_of_magnitude(name):
    chip = chips.CHIPS[name]
    assert 6e13 < chip.peak_flops < 3e15
    assert 2e11 < chip.hbm_bandwidth < 1e13
    assert 1e10 < chip.hbm_bytes < 2e11
    assert chip.dcn_bandwidth < chip.ring_bandwidth == chip.link_bandwidth / 2 < chip.hbm_bandwidth
    assert 100 < chip.peak_flops / chip.hbm_bandwidth < 600


@pytest.mark.parametrize(
    ("kind", "tflops", "gigabytes"),
    [
        ("NVIDIA A100-SXM4-40GB", 312, 40),
        ("NVIDIA A100-SXM4-80GB", 312, 80),
        ("NVIDIA A100 80GB PCIe", 312, 80),
        ("NVIDIA H100 80GB HBM3", 1979 / 2, 80),  # The data sheet's peak is "with sparsity".
        ("NVIDIA H100 PCIe", 1513 / 2, 80),
        ("NVIDIA H200", 1979 / 2, 141),
        ("NVIDIA B200", 36_000 / 8 / 2, 180),  # HGX B200: 8 GPUs, "with sparsity".
        ("NVIDIA GeForce RTX 4090", 330.3 / 2, 24),
        ("NVIDIA GeForce RTX 5090", 419 / 2, 32),
        ("NVIDIA L4", 242 / 2, 24),
        ("Tesla T4", 65, 16),
    ],
)
def test_peak_and_memory_of_data_sheets(kind, tflops, gigabytes):
    """Check the dense peak; the memory that CUDA reports is at most that of the data sheet."""
    chip = chips.CHIPS[chips.DEVICE_KINDS[kind]]
    assert chip.peak_flops == pytest.approx(tflops * 1e12, rel=1e-3)
    assert 0.9 * gigabytes < chip.hbm_bytes / chips.GIB <= gigabytes


def test_every_chip_has_a_kind():
    assert set(chips.DEVICE_KINDS.values()) == set(chips.CHIPS)
