"""Tests that compile a small model for real TPU topologies; `make aot` runs them."""

import importlib.util
import json

import pytest
from etils import epath

from configs import common, tpu_v5e
from oneflow_jax.aot import run, topologies
from oneflow_jax.runtime import sharding, workdir
from tests import runs

pytestmark = [
    pytest.mark.libtpu,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="needs requirements-aot.txt"
    ),
]


@pytest.mark.parametrize("name", ["v4-8", "v4-32", "v5p-8", "v5e-1", "v5e-16", "v6e-8", "2xv4-16"])
def test_one_device_per_chip(name):
    topology = topologies.parse_topology(name)
    devices = topology.devices()
    count = topology.num_slices
    for side in topology.shape:
        count *= side
    assert len(devices) == count
    assert {device.platform for device in devices} == {"tpu"}
    assert (
        len({getattr(device, "slice_index", None) or 0 for device in devices})
        == topology.num_slices
    )


def test_mesh_axis_may_split_a_torus_side():
    """Check fsdp=32, which must split a side of the 8 x 8 x 8 torus."""
    devices = topologies.parse_topology("v4-1024").devices()
    assert sharding.make_mesh({"data": -1, "fsdp": 32}, devices).shape["data"] == 16


def small_config(**changes):
    """Return a configuration with the splash kernel (head width 128) and fsdp over 4 chips."""
    return runs.make_config(
        **{
            "mesh__fsdp": 4,
            "batch_size": 16,
            "data__sequence_length": 256,
            "model__width": 256,
            "model__heads": 2,
            "model__kv_heads": 2,
            "model__head_width": 128,
            "model__hidden": 512,
            "model__scan_unroll": 1,
            "model__dtype": "bfloat16",
            "model__attention": "splash",
        }
        | changes
    )


def test_a_small_model_on_a_slice(tmp_path, capsys):
    folder = epath.Path(tmp_path)
    run.run(small_config(), folder, ["v4-8"])
    (report,) = json.loads((folder / workdir.AOT_REPORT).read_text()).values()
    assert report["chips"] == 4
    assert report["hbm_bytes_per_chip"] < report["hbm_limit_bytes"]
    assert (
        0
        < report["roofline_mfu"]
        <= report["model_flops_per_chip"] / report["flops_per_chip"]
        <= 1.0
    )
    assert 0 < report["scheduled_mfu"] < 1
    assert {"all-gather", "reduce-scatter"} & set(report["collectives"])
    assert report["activations_gathered"] == 0
    assert report["sampling"]["fits"]
    assert "MFU" in capsys.readouterr().out


def test_flops_equal_the_analytic_count():
    """Check that loops over layers and microbatches are counted once per iteration."""
    config = small_config(model__attention="xla", model__layers=3, grad_accum_steps=2)
    report = run.topology_report(config, topologies.parse_topology("v4-8"), program_names=["train"])
    assert report["flops_per_chip"] == pytest.approx(report["model_flops_per_chip"], rel=0.03)


def test_collectives_across_slices_are_reported():
    report = run.topology_report(
        small_config(), topologies.parse_topology("2xv4-8"), program_names=["train"]
    )
    assert report["mesh"]["slices"] == 2
    assert report["sending_seconds"] > 0
    assert report["between_slices"] > 0


def test_programs_that_jax_cannot_parse():
    """Compile for v6e, whose SparseCores gather embeddings concurrently; JAX cannot parse this."""
    config = small_config(
        data__sequence_length=1024, data__vocab_size=32_768, model__embed_width=512
    )
    report = run.topology_report(
        config, topologies.parse_topology("v6e-8"), program_names=["train"]
    )
    assert report["flops_per_chip"] > report["model_flops_per_chip"]
    assert 0 < report["scheduled_mfu"] < report["roofline_mfu"] < 1


def test_own_data_on_a_slice():
    config = common.shrink_for_debugging(tpu_v5e.get_config("1B,own")).lock()
    report = run.topology_report(config, topologies.parse_topology("v5e-4"))
    assert report["fits"]
    assert report["sampling"]["fits"]


def test_too_large_program_is_reported():
    config = small_config(batch_size=4 * 4096, data__sequence_length=2_048, mesh__fsdp=1)
    report = run.topology_report(
        config, topologies.parse_topology("v5e-4"), program_names=["train"]
    )
    assert not report["fits"]
    assert report["hbm_bytes_per_chip"] > report["hbm_limit_bytes"]
