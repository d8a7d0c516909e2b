"""Tests of `--mode=aot` on the host's devices, and of its error messages."""

import json
import math

import jax
import pytest
from etils import epath

from configs import model_sizes
from oneflow_jax.aot import collective_roles, compile, report, run, topologies
from oneflow_jax.build import aot_config, data
from oneflow_jax.build import system as system_lib
from oneflow_jax.costs import flops
from oneflow_jax.errors import UserError
from oneflow_jax.nn import partitioning
from oneflow_jax.runtime import workdir
from tests import runs

KEYS = {
    "hbm_bytes_per_chip", "hbm_limit_bytes", "flops_per_chip", "bytes_per_chip", "collectives",
    "categories",
}  # fmt: skip


def tiny_config(**changes):
    return runs.make_config(**{"mesh__fsdp": 4} | changes)


def read_report(folder):
    return json.loads((folder / workdir.AOT_REPORT).read_text())


def test_host_report_has_everything_but_the_roofline(tmp_path, capsys):
    folder = epath.Path(tmp_path)
    run.run(tiny_config(), folder, ["host"])
    summary = read_report(folder)["host"]
    assert set(summary) > KEYS
    assert summary["hbm_bytes_per_chip"] == sum(summary["categories"].values())
    assert "all-gather" in summary["collectives"]
    assert summary["activations_gathered"] == 0
    assert summary["sampling"]["hbm_bytes_per_chip"] > 0
    assert "roofline_seconds" not in summary
    printed = capsys.readouterr().out
    assert "topology" in printed
    assert "all-gather" in printed
    # The command writes neither data nor a tokenizer.
    assert {path.name for path in folder.iterdir()} == {workdir.AOT_REPORT, workdir.AOT_MEMORY_PLOT}


@pytest.fixture(scope="module")
def abstract_system():
    return system_lib.abstract_system(tiny_config(), jax.devices())


def test_flops_equal_the_analytic_count(abstract_system):
    """Compare counted and analytic FLOPs; without remat, only the vocabulary's products differ."""
    summary = run.topology_report(
        tiny_config(), topologies.parse_topology("host"), program_names=["train"]
    )
    assert summary["flops_per_chip"] * 8 == pytest.approx(abstract_system.flops, rel=0.03)
    assert summary["model_flops_per_chip"] * 8 == abstract_system.flops


def test_sharded_state_takes_its_part_of_each_device(abstract_system):
    state = abstract_system.abstract_state
    whole = sum(leaf.size * 4 for leaf in jax.tree.leaves(state.params))
    share = compile.bytes_per_device(state.params)
    assert whole / 4 < share < whole / 3.5  # Norms and biases are replicated.
    compiled = compile.compile_train_step(abstract_system)
    assert compiled.memory.categories["moments"] == pytest.approx(2 * share, rel=0.01)
    assert compiled.memory.categories["average"] == share


def test_abstract_batches_have_the_shapes_of_real_ones(tmp_path, abstract_system):
    """Compare the shapes of abstract batches with those of batches that are loaded from data."""
    system = runs.prepare_system(tmp_path, tiny_config())
    batch = next(iter(system.train_batches()))
    for (path, real), shape in zip(
        jax.tree_util.tree_leaves_with_path(batch),
        jax.tree.leaves(
            compile.abstract_canvas(
                abstract_system, abstract_system.config.batch_size, abstract_system.batch_sharding
            )
        ),
        strict=True,
    ):
        assert (real.shape, real.dtype) == (shape.shape, shape.dtype), path
        assert real.sharding.is_equivalent_to(shape.sharding, real.ndim), path


def test_abstract_vocabulary_has_its_maximum_size(tmp_path):
    config = runs.make_config()
    learned = data.make_layout(config, epath.Path(tmp_path)).vocab
    planned = data.abstract_layout(config).vocab
    assert learned.size <= planned.size == config.data.vocab_size
    assert planned.padded_size() % 128 == 0


def test_batch_scales_with_chips_and_fsdp_is_limited():
    config = aot_config.fit_config(tiny_config(mesh__fsdp=32), 16, 2, per_device_batch=3)
    assert (config.batch_size, config.mesh.slices, config.mesh.fsdp) == (48, 2, 8)
    assert aot_config.fit_config(tiny_config(), 8, 1, None).batch_size == tiny_config().batch_size


def test_gathered_activations_are_reported(monkeypatch):
    """Remove the sharding constraints: activations then follow the kernels' fsdp axis.

    Then XLA must gather the activations, and the report has to count these gathers.
    """
    monkeypatch.setattr(collective_roles, "SMALL_BYTES", 4_096)

    def count_gathered_activations():
        summary = run.topology_report(
            tiny_config(), topologies.parse_topology("host"), program_names=["train"]
        )
        return summary["activations_gathered"]

    assert count_gathered_activations() == 0
    for name in ("with_logical_constraint", "all_gather_fsdp"):
        monkeypatch.setattr(partitioning, name, lambda x, names: x)
    assert count_gathered_activations() > 0


@pytest.mark.parametrize(
    ("message", "temporaries"),
    [
        ("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space "
         "hbm. Used 40.50G of 15.75G hbm. Exceeded hbm capacity by 24.75G.", 40.5 - 3),
        ("RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
         "required for HLO temporaries (141.21G) exceeds available HBM (30.75G). HLO module: "
         "jit_update.", 141.21),
    ],
)  # fmt: skip
def test_out_of_memory_error_of_xla(message, temporaries):
    assert compile.parse_oom_temporaries(message, 3 * 2**30) / 2**30 == pytest.approx(temporaries)


@pytest.mark.parametrize("message", ["RESOURCE_EXHAUSTED: too many\nlines", "INTERNAL: Used 3G"])
def test_other_errors_of_xla(message):
    with pytest.raises(
        UserError, match=f"XLA could not compile this program: {message.splitlines()[0]}$"
    ):
        compile.parse_oom_temporaries(message, 0.0)


OOM_REPORT = {
    "chips": 4, "mesh": {"data": 1, "fsdp": 4}, "batch": 8, "grad_accum_steps": 1, "fits": True,
    "hbm_limit_bytes": 10.0, "hbm_bytes_per_chip": 12.0,
    "categories": {"parameters": 1.0, "moments": 2.0, "average": 1.0, "temporaries": 8.0},
}  # fmt: skip


def test_too_large_program_is_reported_with_advice():
    (message,) = report.oom_messages("v4-8", OOM_REPORT)
    assert "training" in message
    assert "--config.model.remat=full" in message
    assert "--config.grad_accum_steps=2" in message
    state = OOM_REPORT | {
        "chips": 8,
        "categories": {"parameters": 3.0, "moments": 6.0, "average": 3.0},
    }
    assert "--config.mesh.fsdp=8" in report.oom_messages("v4-16", state)[0]
    assert "Use more chips" in report.oom_messages("v4-8", state | {"chips": 4})[0]
    sampling = OOM_REPORT | {"hbm_bytes_per_chip": 9.0, "sampling": OOM_REPORT}
    assert "evaluation.batch_size" in report.oom_messages("v4-8", sampling)[0]
    assert report.oom_messages("v4-8", OOM_REPORT | {"hbm_bytes_per_chip": 10.0}) == []
    assert report.oom_messages("host", OOM_REPORT | {"hbm_limit_bytes": None}) == []
    assert report.oom_messages("v4-8", OOM_REPORT | {"hbm_bytes_per_chip": 1.0, "fits": False})


def test_too_large_program_fails_after_all_reports(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "topology_report", lambda *_, **__: OOM_REPORT)
    with pytest.raises(UserError, match=r"v4-8: training(.|\n)*v4-16: training"):
        run.run(tiny_config(), epath.Path(tmp_path), ["v4-8", "v4-16"])
    assert set(read_report(epath.Path(tmp_path))) == {"v4-8", "v4-16"}


def test_topologies_default_to_the_configuration(tmp_path, monkeypatch):
    monkeypatch.setattr(
        run, "topology_report", lambda *_, **__: OOM_REPORT | {"hbm_bytes_per_chip": 1.0}
    )
    run.run(tiny_config(aot_topologies=("v5e-8",)), epath.Path(tmp_path), [])
    assert set(read_report(epath.Path(tmp_path))) == {"v5e-8"}
    with pytest.raises(UserError, match="--topology is missing"):
        run.run(tiny_config(), epath.Path(tmp_path), [])


def test_a_batch_that_does_not_fit_the_chips_is_refused():
    with pytest.raises(UserError, match="batch_size=12"):
        run.topology_report(tiny_config(batch_size=12), topologies.parse_topology("host"))


@pytest.mark.parametrize("size", model_sizes.SIZES)
def test_model_sizes_match_their_names(size):
    config = model_sizes.make_config("any", size, "emoji")
    system = system_lib.abstract_system(config.lock(), jax.devices())
    count = flops.from_model(system.model, system.layout.codec.channels).num_parameters
    shapes = system.abstract_state.params
    assert count == sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    number, unit = model_sizes.PARAMETERS[size].split()
    scale = {"million": 1e6, "billion": 1e9}[unit]
    assert count == pytest.approx(float(number) * scale, abs=0.005 * scale if scale > 1e8 else 5e5)
