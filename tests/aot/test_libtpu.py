"""Real compilation for TPUs, on a small model: `make aot`."""

import importlib.util
import json

import pytest
from etils import epath

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
def test_as_many_devices_as_chips(name):
    topology = topologies.parse_topology(name)
    devices = topology.devices()
    count = topology.slices
    for side in topology.shape:
        count *= side
    assert len(devices) == count
    assert {device.platform for device in devices} == {"tpu"}
    assert len({getattr(device, "slice_index", None) or 0 for device in devices}) == topology.slices


def test_a_mesh_may_split_a_side_of_the_torus():
    """32 is no product of sides of 8 x 8 x 8."""
    devices = topologies.parse_topology("v4-1024").devices()
    assert sharding.make_mesh({"data": -1, "fsdp": 32}, devices).shape["data"] == 16


def small_config(**changes):
    """Heads and widths that the kernel and the chip like; the state spread over four chips."""
    return runs.make_config(
        **{
            "mesh__fsdp": 4,
            "batch": 16,
            "data__length": 256,
            "model__width": 256,
            "model__heads": 2,
            "model__kv_heads": 2,
            "model__head_width": 128,
            "model__hidden": 512,
            "model__unroll": 1,
            "model__dtype": "bfloat16",
            "model__attention": "splash",
        }
        | changes
    )


def test_a_small_model_on_a_slice(tmp_path, capsys):
    folder = epath.Path(tmp_path)
    run.run(small_config(), folder, ["v4-8"])
    (told,) = json.loads((folder / workdir.AOT_REPORT).read_text()).values()
    assert told["chips"] == 4
    assert told["hbm_bytes_per_chip"] < told["hbm_limit_bytes"]
    assert 0 < told["roofline_mfu"] <= told["model_flops_per_chip"] / told["flops_per_chip"] <= 1.0
    assert 0 < told["scheduled_mfu"] < 1
    assert {"all-gather", "reduce-scatter"} & set(told["collectives"])
    assert told["activations_gathered"] == 0
    assert told["sampling"]["fits"]
    assert "MFU" in capsys.readouterr().out


def test_flops_are_those_counted_on_paper():
    """Loops of layers and microbatches are counted as often as they run."""
    config = small_config(model__attention="dense", model__layers=3, parts=2)
    told = run.topology_report(config, topologies.parse_topology("v4-8"), program_names=["train"])
    assert told["flops_per_chip"] == pytest.approx(told["model_flops_per_chip"], rel=0.03)


def test_what_crosses_slices_is_told():
    told = run.topology_report(
        small_config(), topologies.parse_topology("2xv4-8"), program_names=["train"]
    )
    assert told["mesh"]["slices"] == 2
    assert told["sending_seconds"] > 0
    assert told["between_slices"] > 0


def test_programs_whose_text_jax_cannot_read():
    """A v6e's sparse cores gather rows of large tables while others work."""
    config = small_config(data__length=1024, data__vocab=32_768, model__embed_width=512)
    told = run.topology_report(config, topologies.parse_topology("v6e-8"), program_names=["train"])
    assert told["flops_per_chip"] > told["model_flops_per_chip"]
    assert 0 < told["scheduled_mfu"] < told["roofline_mfu"] < 1


def test_what_does_not_fit_is_said_so():
    config = small_config(batch=4 * 4096, data__length=2_048, mesh__fsdp=1)
    told = run.topology_report(config, topologies.parse_topology("v5e-4"), program_names=["train"])
    assert not told["fits"]
    assert told["hbm_bytes_per_chip"] > told["hbm_limit_bytes"]
