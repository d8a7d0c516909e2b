"""Tests of sharding: where arrays are placed, and that results do not depend on it.

`tests/golden/sharding/` has the sharding of every parameter of every configuration, with its real
shapes on a small mesh. After an intended change, write the files again and review the diff:

    pytest tests/runtime/test_sharding.py --regenerate-golden
"""

import functools
import pathlib
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from configs import codec, digits, documents, own, quickstart, shipped, tpu_v4
from oneflow_jax.build import autoencoder_system
from oneflow_jax.build import system as system_lib
from oneflow_jax.data import vocab
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import sharding
from oneflow_jax.training import train_state
from tests import tiny

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "sharding"
CUBE = {"data": 2, "fsdp": 2, "tensor": 2}
LONG = {"data": 2, "context": 2, "tensor": 2}

CONFIGS = {
    # The model has three heads, so the axis `tensor` cannot have size 2.
    "digits": (digits.get_config, {"data": 4, "fsdp": 2}),
    "quickstart": (quickstart.get_config, CUBE),
    "transfusion": (lambda: quickstart.get_config("transfusion"), CUBE),
    "documents": (documents.get_config, CUBE),
    "own": (own.get_config, CUBE),
    "shipped": (shipped.get_config, CUBE),
    "tpu_v4": (tpu_v4.get_config, {"fsdp": 2, "context": 2, "tensor": 2}),
}


def shardings(sizes, system=None):
    system = system or tiny.System()
    mesh = sharding.make_mesh(sizes)
    with sharding.mesh_context(mesh):
        boxed = jax.eval_shape(system.initializer(tiny.packed_batch()), jax.random.key(0))
        return sharding.state_sharding(mesh, boxed)


def name_of(path):
    return "/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path)


def format_shardings(params):
    """Format each array as a line: name, shape, and the mesh axis of each dimension."""
    rows = []
    for path, leaf in jax.tree.leaves_with_path(params):
        spec = [*leaf.sharding.spec, *[None] * (leaf.ndim - len(leaf.sharding.spec))]
        shape = " x ".join(map(str, leaf.shape))
        rows.append((name_of(path), shape, ", ".join(axis or "-" for axis in spec)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)) for row in rows]
    return "".join(f"{line.rstrip()}\n" for line in lines)


@pytest.mark.parametrize("name", CONFIGS)
def test_parameter_shardings_match_golden_files(name, tmp_path, monkeypatch, request):
    """Check the parameters of a configuration in their real sizes; only the data is toy data."""
    make, sizes = CONFIGS[name]
    config = make()
    config.mesh.update({"data": 1} | sizes)
    config.source = {"name": "toy", "documents": 8, "pixels": config.codec.pixels}
    config.data.dir = str(tmp_path / "data")
    config.platform, config.evaluation.suite = "any", ""
    monkeypatch.setattr(vocab.Vocab, "padded_size", lambda self: config.data.vocab_size)
    state = train_state.abstract_state(system_lib.system(config.lock(), epath.Path(tmp_path)))
    mesh = ", ".join(f"{axis} {size}" for axis, size in config.mesh.items())
    text = f"{mesh}\n\n{format_shardings(state.params)}"
    path = GOLDEN / f"{name}.txt"
    if request.config.getoption("--regenerate-golden"):
        path.write_text(text)
    assert text == path.read_text()
    # The rest of the state is sharded like its parameters, or is a scalar.
    specs = {path: leaf.sharding.spec for path, leaf in jax.tree.leaves_with_path(state.params)}
    moments = muon_moments = 0
    for path, leaf in jax.tree.leaves_with_path((state.ema, state.opt_state)):
        of = [spec for name, spec in specs.items() if path[-len(name) :] == name]
        moments += len(of)
        muon_moments += len(of) * ("/muon/" in name_of(path))
        is_constant = leaf.ndim == 0 or "ns_coeffs" in name_of(path)
        assert [leaf.sharding.spec] == of or is_constant, name_of(path)
    # AdamW has two moments of each parameter, and Muon has one.
    assert moments == 3 * len(specs) - muon_moments
    assert bool(muon_moments) == (config.optimizer.name == "muon")


def test_every_transformer_configuration_has_a_golden_file():
    files = {path.stem for path in pathlib.Path(codec.__file__).parent.glob("*.py")}
    of_the_same_models = {
        "finetune",
        "language_model",
        "model_sizes",
        "gpu",
        "tpu",
        "tpu_v5e",
        "tpu_v5p",
        "tpu_v6e",
        "emoji_styles",
    }
    others = {"__init__", "common", "codec", "compare"} | of_the_same_models
    assert files - others <= set(CONFIGS)
    assert {path.stem for path in GOLDEN.iterdir()} == set(CONFIGS)


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_autoencoders_are_copied_to_every_device(kind):
    state = train_state.abstract_state(
        autoencoder_system.system(codec.get_config(kind).lock(), for_training=False)
    )
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))


@functools.cache
def train_on_mesh(sizes, devices):
    """Train 5 steps on a mesh; return losses, planned shardings and the state."""
    with tiny.shard_system(tiny.System(), tiny.packed_batch(), dict(sizes), devices) as placed:
        state, losses = placed.state, []
        for _ in range(5):
            state, metrics = placed.step(state, placed.batch)
            losses.append(tiny.compute_metrics(metrics))
        return losses, placed.shardings, state


ONE = tuple(dict.fromkeys(sharding.AXES, 1).items())


@pytest.mark.parametrize(
    "sizes",
    [{"data": 8}, {"fsdp": 8}, CUBE],
    ids=str,
)
def test_one_device_and_eight_compute_the_same(sizes):
    alone, together = train_on_mesh(ONE, 1)[0], train_on_mesh(tuple(sizes.items()), 8)[0]
    for single_loss, sharded_loss in zip(alone, together, strict=True):
        for name in ("loss", "text", "image"):
            np.testing.assert_allclose(
                sharded_loss[name], single_loss[name], rtol=2e-5, err_msg=name
            )


def test_training_keeps_the_planned_shardings():
    _, planned, state = train_on_mesh(tuple(CUBE.items()), 8)
    for (path, before), after in zip(
        jax.tree_util.tree_leaves_with_path(planned), jax.tree.leaves(state), strict=True
    ):
        assert after.sharding.is_equivalent_to(before, after.ndim), jax.tree_util.keystr(path)
    kernel = state.params["backbone"]["blocks"]["mlp"]["down"]["kernel"]
    # [layers, hidden, width]: divided by 2 along tensor and by 2 along fsdp.
    assert kernel.addressable_shards[0].data.shape == (
        kernel.shape[0], kernel.shape[1] // 2, kernel.shape[2] // 2,
    )  # fmt: skip


def test_activation_sharding_constraints_hold():
    mesh = sharding.make_mesh(CUBE)
    axes = ("rows", "slots", "act_hidden")
    with sharding.mesh_context(mesh):
        x = jax.jit(lambda x: nn.with_logical_constraint(x, axes))(jnp.zeros((8, 4, 6)))
    assert x.addressable_shards[0].data.shape == (2, 4, 3)


def test_mesh_size_minus_one_takes_the_remaining_devices():
    mesh = sharding.make_mesh({"data": 2, "fsdp": -1, "tensor": 2})
    assert dict(mesh.shape) == {"slices": 1, "context": 1} | CUBE
    assert mesh.axis_names == sharding.AXES
    mesh = sharding.make_mesh({"context": 2}, jax.devices()[:2])
    assert mesh.shape["context"] == mesh.size == 2


@pytest.mark.parametrize(
    "sizes",
    [
        {"data": 3},
        {"data": 4},
        {"data": -1, "fsdp": 3},
        {"data": -1, "fsdp": -1},
        {"data": -1, "fsdp": 0},
        {"data": -2, "fsdp": -4},
        {"data": 8, "model": 1},
    ],
    ids=str,
)
def test_a_mesh_that_does_not_fit_is_refused(sizes):
    with pytest.raises(UserError, match="8 cpu device"):
        sharding.make_mesh(sizes)


class Chip:
    """A stub of a device with the attributes that `make_mesh` reads."""

    platform, device_kind, process_index, client = "cpu", "chip", 0, None

    def __init__(self, number, slices):
        self.id, self.slice_index = number, number % slices

    def __repr__(self):
        return f"{self.id} of slice {self.slice_index}"


@pytest.mark.parametrize("sizes", [{"slices": 2, "data": -1, "tensor": 2}, {"slices": -1}])
def test_only_the_slices_axis_crosses_tpu_slices(sizes):
    mesh = sharding.make_mesh(sizes, [Chip(n, slices=mesh_slices(sizes)) for n in range(8)])
    slice_indices = np.vectorize(lambda chip: chip.slice_index)(mesh.devices)
    assert mesh.shape["slices"] == mesh_slices(sizes)
    for number, within in enumerate(slice_indices):
        assert (within == number).all()


def mesh_slices(sizes):
    return 8 if sizes["slices"] == -1 else sizes["slices"]


@pytest.mark.parametrize("sizes", [{"data": 8}, {"slices": 4, "data": 2}, {"slices": 1, "data": 8}])
def test_mesh_slices_must_equal_the_slices_of_the_devices(sizes):
    with pytest.raises(UserError, match=r"mesh\.slices=\d.* 2 TPU slice.*Set mesh\.slices=2"):
        sharding.make_mesh(sizes, [Chip(n, slices=2) for n in range(8)])


def test_gpus_of_a_node_are_a_slice(monkeypatch):
    monkeypatch.setattr(Chip, "platform", "gpu")
    devices = [Chip(n, slices=2) for n in range(8)]
    with pytest.raises(UserError, match=r"mesh\.slices=1: .* in 2 node.*Set mesh\.slices=2"):
        sharding.make_mesh({"data": 8}, devices)
    assert sharding.make_mesh({"slices": 2, "data": -1}, devices).shape["data"] == 4


def test_described_gpus_are_in_the_node_of_their_process(monkeypatch):
    """Check GPUs that do not exist: JAX gives all of them the slice 0."""
    monkeypatch.setattr(Chip, "platform", "gpu")
    monkeypatch.setattr(Chip, "client", types.SimpleNamespace(runtime_type="compile_only_runtime"))
    devices = [Chip(n, slices=1) for n in range(8)]
    for number, device in enumerate(devices):
        device.process_index = number // 4
    assert sharding.slice_indices(devices) == [0] * 4 + [1] * 4
    mesh = sharding.make_mesh({"slices": 2, "data": -1}, devices)
    assert [device.id for device in mesh.devices[1].flat] == [4, 5, 6, 7]


def test_a_size_that_does_not_divide_is_refused_by_name():
    heads = tiny.System(network=tiny.network(kv_heads=1))
    with pytest.raises(UserError, match=r"\['key'\]\['kernel'\].*shape \(2, 32, 1, 16\).*tensor"):
        shardings(CUBE, heads)


@pytest.mark.parametrize(
    ("names", "rules", "message"),
    [
        (("width", "depth"), (), r"\['w'\].*'depth' has no sharding rule\..* rows, slots"),
        (("hidden", "heads"), (), r"\['w'\]: its axes .*\['tensor', 'tensor'\], one of them twice"),
        (("width", "both"), (("both", ("tensor", "fsdp")),), r"\['w'\].*one of them twice"),
        (("width", "embed"), (("depth", "expert"),), r"'depth' -> 'expert'.*no axis .*fsdp"),
    ],
)
def test_names_without_a_rule_and_rules_without_an_axis_are_refused(names, rules, message):
    mesh = sharding.make_mesh({"data": 8})
    boxed = {"w": nn.LogicallyPartitioned(jax.ShapeDtypeStruct((8, 8), jnp.float32), names)}
    with pytest.raises(UserError, match=message):
        sharding.state_sharding(mesh, boxed, sharding.RULES + rules)


def test_batch_size_must_divide_into_devices_and_microbatches():
    mesh = sharding.make_mesh(CUBE)
    sharding.check_batch_divides(mesh, 16, 4)
    for rows, parts in ((6, 1), (8, 4), (12, 2)):
        with pytest.raises(UserError, match=f"batch_size={rows}: .*grad_accum_steps={parts}"):
            sharding.check_batch_divides(mesh, rows, parts)
    # Devices along `context` share rows in training, but take rows of their own in sampling.
    mesh = sharding.make_mesh(LONG)
    sharding.check_batch_divides(mesh, 2)
    with pytest.raises(UserError, match=r"batch_size=2: .*context = 1 x 2 x 1 x 2 .*multiple of 4"):
        sharding.check_batch_divides(mesh, 2, rules=sharding.SAMPLING_RULES)


def test_configured_sizes_must_divide_into_shards():
    mesh = sharding.make_mesh({"data": 1, "context": 4, "tensor": 2})
    sharding.check_divides(mesh, "data.sequence_length", 96, "slots")
    with pytest.raises(
        UserError, match=r"data\.sequence_length=66: .*mesh\.context=4 .*multiple of 4"
    ):
        sharding.check_divides(mesh, "data.sequence_length", 66, "slots")


@pytest.mark.parametrize(
    ("where", "shape"),
    [
        (lambda mesh: sharding.batch_sharding(mesh), (4, 2, 3)),
        (lambda mesh: sharding.row_sharding(mesh), (4, 4, 3)),
        (lambda mesh: sharding.row_sharding(mesh, sharding.SAMPLING_RULES), (2, 4, 3)),
        (lambda mesh: sharding.replicated_sharding(mesh), (8, 4, 3)),
    ],
    ids=["slots", "rows", "sampling", "replicated"],
)
def test_batches_are_sharded_over_rows_and_slots(where, shape):
    x = jax.device_put(jnp.zeros((8, 4, 3)), where(sharding.make_mesh(LONG)))
    assert x.addressable_shards[0].data.shape == shape
