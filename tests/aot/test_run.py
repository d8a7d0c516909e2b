"""`--mode=compile`, on the host's devices, and what it refuses."""

import json
import math

import jax
import pytest
from etils import epath

from configs import tpu, tpu_v4
from oneflow_jax.aot import collective_roles, compile, report, run, topologies
from oneflow_jax.build import data
from oneflow_jax.build import system as system_lib
from oneflow_jax.costs import flops
from oneflow_jax.errors import UserError
from oneflow_jax.nn import partitioning
from oneflow_jax.runtime import workdir
from oneflow_jax.training import train_state
from tests import runs

KEYS = {
    "hbm_bytes_per_chip", "hbm_limit_bytes", "flops_per_chip", "bytes_per_chip", "collectives",
    "categories",
}  # fmt: skip


def tiny(**changes):
    return runs.config(**{"mesh__fsdp": 4} | changes)


def figures(folder):
    return json.loads((folder / workdir.COMPILE).read_text())


def test_everything_but_the_roofline_is_told_of_the_host(tmp_path, capsys):
    folder = epath.Path(tmp_path)
    run.run(tiny(), folder, ["host"])
    told = figures(folder)["host"]
    assert set(told) > KEYS
    assert told["hbm_bytes_per_chip"] == sum(told["categories"].values())
    assert "all-gather" in told["collectives"]
    assert told["activations_gathered"] == 0
    assert told["sampling"]["hbm_bytes_per_chip"] > 0
    assert "roofline_seconds" not in told
    printed = capsys.readouterr().out
    assert "topology" in printed
    assert "all-gather" in printed
    # Neither data nor tokenizer, nor anything else.
    assert {path.name for path in folder.iterdir()} == {workdir.COMPILE, workdir.MEMORY}


@pytest.fixture(scope="module")
def planned():
    return system_lib.planned(tiny(), jax.devices())


def test_flops_are_those_counted_on_paper(planned):
    """But for what is recomputed, of which there is none, and two products of the vocabulary."""
    told = run.figures_of(tiny(), topologies.named("host"), which=["train"])
    assert told["flops_per_chip"] * 8 == pytest.approx(planned.flops, rel=0.03)
    assert told["model_flops_per_chip"] * 8 == planned.flops


def test_the_state_takes_its_share_of_each_device(planned):
    state = train_state.abstract(planned)
    whole = sum(leaf.size * 4 for leaf in jax.tree.leaves(state.params))
    share = compile.local_bytes(state.params)
    assert whole / 4 < share < whole / 3.5  # Norms and biases are on every device.
    compiled = compile.training(planned)
    assert compiled.memory.categories["moments"] == pytest.approx(2 * share, rel=0.01)
    assert compiled.memory.categories["average"] == share


def test_planned_shapes_are_those_of_real_batches(tmp_path, planned):
    """Of a system that has its data."""
    system = runs.prepared(tmp_path, tiny())
    batch = next(iter(system.batches()))
    for (path, real), shape in zip(
        jax.tree_util.tree_leaves_with_path(batch),
        jax.tree.leaves(compile.canvases(planned, planned.config.batch, planned.placement)),
        strict=True,
    ):
        assert (real.shape, real.dtype) == (shape.shape, shape.dtype), path
        assert real.sharding.is_equivalent_to(shape.sharding, real.ndim), path


def test_a_planned_vocabulary_is_as_large_as_it_may_become(tmp_path):
    config = runs.config()
    learned = data.layout(config, epath.Path(tmp_path)).vocab
    planned = data.planned_layout(config).vocab
    assert learned.size <= planned.size == config.data.vocab
    assert planned.size_padded() % 128 == 0


def test_the_batch_follows_the_chips_and_fsdp_is_no_wider():
    config = run.fitted(tiny(mesh__fsdp=32), 16, 2, rows_per_chip=3)
    assert (config.batch, config.mesh.slices, config.mesh.fsdp) == (48, 2, 8)
    assert run.fitted(tiny(), 8, 1, None).batch == tiny().batch


def test_activations_that_are_gathered_are_told(monkeypatch):
    """Where nothing says how they lie, they follow the kernels, along fsdp, and then must meet."""
    monkeypatch.setattr(collective_roles, "FEW", 4_096)

    def gathered():
        told = run.figures_of(tiny(), topologies.named("host"), which=["train"])
        return told["activations_gathered"]

    assert gathered() == 0
    for name in ("constrained", "gathered"):
        monkeypatch.setattr(partitioning, name, lambda x, names: x)
    assert gathered() > 0


@pytest.mark.parametrize(
    ("told", "temporaries"),
    [
        ("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space "
         "hbm. Used 40.50G of 15.75G hbm. Exceeded hbm capacity by 24.75G.", 40.5 - 3),
        ("RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
         "required for HLO temporaries (141.21G) exceeds available HBM (30.75G). HLO module: "
         "jit_update.", 141.21),
    ],
)  # fmt: skip
def test_what_xla_refuses_for_want_of_memory(told, temporaries):
    assert compile.without_room(told, 3 * 2**30) / 2**30 == pytest.approx(temporaries)


@pytest.mark.parametrize("told", ["RESOURCE_EXHAUSTED: too many\nlines", "INTERNAL: Used 3G"])
def test_what_xla_refuses_for_another_reason(told):
    with pytest.raises(UserError, match=f"XLA could not compile this: {told.splitlines()[0]}$"):
        compile.without_room(told, 0.0)


FULL = {
    "chips": 4, "mesh": {"data": 1, "fsdp": 4}, "batch": 8, "parts": 1, "fits": True,
    "hbm_limit_bytes": 10.0, "hbm_bytes_per_chip": 12.0,
    "categories": {"parameters": 1.0, "moments": 2.0, "average": 1.0, "temporaries": 8.0},
}  # fmt: skip


def test_what_does_not_fit_is_told_with_what_to_do():
    (told,) = report.problems("v4-8", FULL)
    assert "training" in told
    assert "--config.model.remat=full" in told
    assert "--config.parts=2" in told
    state = FULL | {"chips": 8, "categories": {"parameters": 3.0, "moments": 6.0, "average": 3.0}}
    assert "--config.mesh.fsdp=8" in report.problems("v4-16", state)[0]
    assert "more of them" in report.problems("v4-8", state | {"chips": 4})[0]
    sampling = FULL | {"hbm_bytes_per_chip": 9.0, "sampling": FULL}
    assert "evaluation.batch" in report.problems("v4-8", sampling)[0]
    assert report.problems("v4-8", FULL | {"hbm_bytes_per_chip": 10.0}) == []
    assert report.problems("host", FULL | {"hbm_limit_bytes": None}) == []
    assert report.problems("v4-8", FULL | {"hbm_bytes_per_chip": 1.0, "fits": False})


def test_what_does_not_fit_fails_after_all_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "figures_of", lambda *_, **__: FULL)
    with pytest.raises(UserError, match=r"v4-8: training(.|\n)*v4-16: training"):
        run.run(tiny(), epath.Path(tmp_path), ["v4-8", "v4-16"])
    assert set(figures(epath.Path(tmp_path))) == {"v4-8", "v4-16"}


def test_topologies_may_be_those_of_the_configuration(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "figures_of", lambda *_, **__: FULL | {"hbm_bytes_per_chip": 1.0})
    run.run(tiny(topologies=("v5e-8",)), epath.Path(tmp_path), [])
    assert set(figures(epath.Path(tmp_path))) == {"v5e-8"}
    with pytest.raises(UserError, match="--topology is missing"):
        run.run(tiny(), epath.Path(tmp_path), [])


def test_a_batch_that_does_not_fit_the_chips_is_refused():
    with pytest.raises(UserError, match="batch=12"):
        run.figures_of(tiny(batch=12), topologies.named("host"))


@pytest.mark.parametrize("size", tpu.SIZES)
def test_sizes_are_what_they_are_called(size):
    config = tpu_v4.get_config(size)
    config.mesh.fsdp = 1
    system = system_lib.planned(config.lock(), jax.devices())
    count = flops.of(system.model, system.layout.codec.channels).parameters
    shapes = train_state.abstract(system).params
    assert count == sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    number, unit = tpu.PARAMETERS[size].split()
    scale = {"million": 1e6, "billion": 1e9}[unit]
    assert count == pytest.approx(float(number) * scale, abs=0.005 * scale if scale > 1e8 else 5e5)
