"""Tests that compile a small model for NVIDIA GPUs without a GPU; `make aot` runs them."""

import json

import pytest
from etils import epath

from oneflow_jax.aot import run, topologies
from oneflow_jax.costs import chips
from oneflow_jax.runtime import gpu, sharding, workdir
from tests import runs

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not gpu.has_plugin(), reason="needs requirements-aot-gpu.txt"),
]


def small_config(**changes):
    return runs.make_config(
        **{
            "mesh__fsdp": 2,
            "batch_size": 16,
            "data__sequence_length": 256,
            "model__width": 256,
            "model__heads": 2,
            "model__kv_heads": 2,
            "model__head_width": 128,
            "model__hidden": 512,
            "model__scan_unroll": 1,
            "model__dtype": "bfloat16",
        }
        | changes
    )


@pytest.mark.parametrize("name", ["h100-8", "a100-1", "2xh200-4", "rtx4090-1", "b200-8", "t4-1"])
def test_one_device_per_gpu(name):
    topology = topologies.parse_topology(name)
    devices = topology.devices()
    assert len(devices) == topology.shape[0] * topology.num_slices
    assert {device.platform for device in devices} == {"gpu"}
    assert {chips.DEVICE_KINDS[device.device_kind] for device in devices} == {topology.generation}
    assert len(set(sharding.slice_indices(devices))) == topology.num_slices


def test_a_small_model_on_two_nodes(tmp_path, capsys):
    folder = epath.Path(tmp_path)
    run.run(small_config(model__attention="blockwise"), folder, ["2xh100-2"])
    (report,) = json.loads((folder / workdir.AOT_REPORT).read_text()).values()
    assert (report["chips"], report["mesh"]["slices"], report["mesh"]["fsdp"]) == (4, 2, 2)
    assert report["hbm_bytes_per_chip"] < report["hbm_limit_bytes"] < 80e9
    assert (
        0
        < report["roofline_mfu"]
        <= report["model_flops_per_chip"] / report["flops_per_chip"]
        <= 1.0
    )
    assert "scheduled_mfu" not in report
    assert {"all-gather", "reduce-scatter"} <= set(report["collectives"])
    assert report["activations_gathered"] == 0
    assert 0 < report["between_slices"] < sum(x["bytes"] for x in report["collectives"].values())
    assert report["sampling"]["fits"]
    assert "MFU" in capsys.readouterr().out


def test_flops_equal_the_analytic_count():
    """Check that loops over layers and microbatches are counted once per iteration."""
    config = small_config(model__attention="xla", model__layers=3, grad_accum_steps=2)
    topology = topologies.parse_topology("a100-4")
    report = run.topology_report(config, topology, program_names=["train"])
    assert report["flops_per_chip"] == pytest.approx(report["model_flops_per_chip"], rel=0.03)
