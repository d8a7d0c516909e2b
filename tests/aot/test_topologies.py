"""Tests of TPU topologies and their names, such as `v4-8`."""

import importlib.util
import itertools
import math

import jax
import pytest

from oneflow_jax.aot import topologies
from oneflow_jax.errors import UserError


@pytest.mark.parametrize(
    ("name", "chips", "shape"),
    [
        ("v4-8", 4, (2, 2, 1)),
        ("v4-64", 32, (2, 4, 4)),
        ("v4-1024", 512, (8, 8, 8)),
        ("v5p-128", 64, (4, 4, 4)),
        ("v5e-1", 1, (1, 1)),
        ("v5e-16", 16, (4, 4)),
        ("v6e-256", 256, (16, 16)),
    ],
)
def test_numbers_count_cores_or_chips(name, chips, shape):
    topology = topologies.parse_topology(name)
    assert (math.prod(topology.shape), topology.shape, topology.num_slices) == (chips, shape, 1)
    assert topology.chip.hbm_bytes > 1e10


def test_several_slices():
    topology = topologies.parse_topology("2xv4-128")
    assert (topology.name, topology.shape, topology.num_slices) == ("2xv4-128", (4, 4, 4), 2)


def test_every_generation_has_chips_and_sizes_double():
    for generation, shapes in topologies.SLICE_SHAPES.items():
        counts = [math.prod(map(int, shape.split("x"))) for shape in shapes]
        steps = {after / before for before, after in itertools.pairwise(counts)}
        assert steps <= {2, 4}, generation
        assert topologies.parse_topology(
            f"{generation}-{topologies.CORES_PER_CHIP[generation] * counts[-1]}"
        ).chip


@pytest.mark.parametrize("name", ["v4-12", "v9-8", "0xv4-8", "v4", "", "2x2xv4-8"])
def test_unknown_topology_lists_the_known_ones(name):
    with pytest.raises(UserError, match=r"v4-8, v4-16.*v5p-8.*v5e-1, .*v6e-256.*2xv4-128.*'host'"):
        topologies.parse_topology(name)


def test_host_devices_have_no_chip_limits():
    host = topologies.parse_topology("host")
    assert host.chip is None
    assert host.devices() == jax.devices()


def test_missing_compiler_names_the_install_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"requirements-aot\.txt.*host"):
        topologies.parse_topology("v4-8").devices()
