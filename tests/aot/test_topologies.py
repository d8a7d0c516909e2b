"""Tests of TPU and GPU topologies and their names, such as `v4-8` and `h100-8`."""

import importlib.util
import itertools
import math

import jax
import pytest

from oneflow_jax.aot import gpu_targets, topologies
from oneflow_jax.costs import chips
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import gpu


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


@pytest.mark.parametrize(
    ("name", "model", "gpus", "nodes"),
    [
        ("h100-8", "h100", 8, 1),
        ("2xh100-8", "h100", 8, 2),
        ("h100-1", "h100", 1, 1),
        ("h100-pcie-4", "h100-pcie", 4, 1),
        ("a100-40gb-8", "a100-40gb", 8, 1),
        ("rtx4090-2", "rtx4090", 2, 1),
    ],
)
def test_gpu_names_have_the_model_and_the_number(name, model, gpus, nodes):
    topology = topologies.parse_topology(name)
    assert (topology.generation, topology.shape, topology.num_slices) == (model, (gpus,), nodes)
    assert topology.memory_limit == gpu.MEMORY_FRACTION * chips.CHIPS[model].hbm_bytes


def test_tpus_have_the_memory_of_their_table():
    assert topologies.parse_topology("v4-8").memory_limit == chips.CHIPS["v4"].hbm_bytes
    assert topologies.parse_topology("host").memory_limit is None


@pytest.mark.parametrize(
    "name", ["v4-12", "v9-8", "0xv4-8", "v4", "", "2x2xv4-8", "h100", "h100-3", "gtx1080-1"]
)
def test_unknown_topology_lists_the_known_ones(name):
    known = r"v4-8, v4-16.*v5p-8.*v5e-1, .*v6e-256.*2xv4-128.*h100-8.*2xh100-8.*rtx4090.*'host'"
    with pytest.raises(UserError, match=known):
        topologies.parse_topology(name)


def test_several_nodes_need_a_known_network():
    with pytest.raises(UserError, match=r"2xrtx4090-1.*no network.*single node: rtx4090-1"):
        topologies.parse_topology("2xrtx4090-1")


def test_missing_gpu_compiler_names_the_install_command(monkeypatch):
    monkeypatch.setattr(gpu, "has_plugin", lambda: False)
    with pytest.raises(UserError, match=r"pip install -r requirements-aot-gpu\.txt.*host"):
        topologies.parse_topology("h100-8").devices()


def test_targets_are_the_gpus_of_the_chip_table():
    assert set(gpu_targets.TARGETS) <= set(chips.CHIPS)
    text = gpu_targets.format_target("h100")
    assert 'device_description_str: "NVIDIA H100 80GB HBM3"' in text
    assert "cuda_compute_capability { major: 9 minor: 0 }" in text
    assert text.count("{") == text.count("}")


def test_host_devices_have_no_chip_limits():
    host = topologies.parse_topology("host")
    assert host.chip is None
    assert host.devices() == jax.devices()


def test_missing_compiler_names_the_install_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"requirements-aot\.txt.*host"):
        topologies.parse_topology("v4-8").devices()
