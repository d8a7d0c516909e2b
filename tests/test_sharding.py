"""Where arrays lie, and that it does not change what is computed.

`tests/golden/sharding.json` holds the layout of every parameter and optimizer array on a 2x2x2
mesh. After a change that is meant to alter it, write it anew, and read the difference:

    pytest tests/test_sharding.py --regenerate-golden
"""

import functools
import json
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax import sharding
from oneflow_jax.errors import UserError
from tests import tiny

GOLDEN = pathlib.Path(__file__).parent / "golden" / "sharding.json"
CUBE = {"data": 2, "fsdp": 2, "tensor": 2}


def specs(tree):
    """The layout of each array of a tree of shardings, by path."""
    return {
        jax.tree_util.keystr(path): str(leaf.spec)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def shardings(sizes, system=None):
    system = system or tiny.System()
    mesh = sharding.make_mesh(sizes)
    with sharding.use(mesh):
        boxed = jax.eval_shape(system.initializer(tiny.packed()), jax.random.key(0))
        return sharding.of_state(mesh, boxed)


def test_shardings_golden(request):
    found = specs(shardings(CUBE))
    if request.config.getoption("--regenerate-golden"):
        GOLDEN.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    assert found == json.loads(GOLDEN.read_text())


@functools.cache
def history(sizes, devices):
    """Losses of 5 steps on a mesh, where the state was to lie, and the state."""
    with tiny.on_mesh(tiny.System(), tiny.packed(), dict(sizes), devices) as placed:
        state, losses = placed.state, []
        for _ in range(5):
            state, metrics = placed.step(state, placed.batch)
            losses.append(tiny.losses(metrics))
        return losses, placed.shardings, state


ONE = tuple(dict.fromkeys(sharding.AXES, 1).items())


@pytest.mark.parametrize(
    "sizes",
    [{"data": 8, "fsdp": 1, "tensor": 1}, {"data": 1, "fsdp": 8, "tensor": 1}, CUBE],
    ids=str,
)
def test_one_device_and_eight_compute_the_same(sizes):
    alone, together = history(ONE, 1)[0], history(tuple(sizes.items()), 8)[0]
    for one, other in zip(alone, together, strict=True):
        for name in ("loss", "text", "image"):
            np.testing.assert_allclose(other[name], one[name], rtol=2e-5, err_msg=name)


def test_the_state_stays_where_it_was_planned():
    _, planned, state = history(tuple(CUBE.items()), 8)
    for (path, before), after in zip(
        jax.tree_util.tree_leaves_with_path(planned), jax.tree.leaves(state), strict=True
    ):
        assert after.sharding.is_equivalent_to(before, after.ndim), jax.tree_util.keystr(path)
    kernel = state.params["backbone"]["blocks"]["mlp"]["down"]["kernel"]
    # [layers, hidden, width]: two parts along tensor, two along fsdp.
    assert kernel.addressable_shards[0].data.shape == (
        kernel.shape[0], kernel.shape[1] // 2, kernel.shape[2] // 2,
    )  # fmt: skip


def test_constraints_on_activations_hold():
    mesh = sharding.make_mesh(CUBE)
    axes = ("rows", "slots", "act_hidden")
    with sharding.use(mesh):
        x = jax.jit(lambda x: nn.with_logical_constraint(x, axes))(jnp.zeros((8, 4, 6)))
    assert x.addressable_shards[0].data.shape == (2, 4, 3)


def test_mesh_takes_the_sizes_given_and_fills_in_the_rest():
    assert dict(sharding.make_mesh({"data": 2, "fsdp": -1, "tensor": 2}).shape) == CUBE
    mesh = sharding.make_mesh({"data": 1, "fsdp": 1, "tensor": 2}, jax.devices()[:2])
    assert mesh.axis_names == sharding.AXES
    assert mesh.shape["tensor"] == 2


@pytest.mark.parametrize(
    "sizes",
    [
        {"data": 3, "fsdp": 1, "tensor": 1},
        {"data": 4, "fsdp": 1, "tensor": 1},
        {"data": -1, "fsdp": 3, "tensor": 1},
        {"data": -1, "fsdp": -1, "tensor": 1},
        {"data": -1, "fsdp": 0, "tensor": 1},
        {"data": -2, "fsdp": -4, "tensor": 1},
        {"data": 8},
        {"data": 8, "fsdp": 1, "model": 1},
    ],
    ids=str,
)
def test_a_mesh_that_does_not_fit_is_refused(sizes):
    with pytest.raises(UserError, match="8 cpu device"):
        sharding.make_mesh(sizes)


def test_a_size_that_does_not_divide_is_refused_by_name():
    heads = tiny.System(network=tiny.network(kv_heads=1))
    with pytest.raises(UserError, match=r"\['key'\]\['kernel'\].*shape \(2, 32, 1, 16\).*tensor"):
        shardings(CUBE, heads)


def test_rows_must_cut_into_devices_and_parts():
    mesh = sharding.make_mesh(CUBE)
    sharding.check_rows(mesh, 16, 4)
    for rows, parts in ((6, 1), (8, 4), (12, 2)):
        with pytest.raises(UserError, match=f"batch={rows} .*parts={parts}"):
            sharding.check_rows(mesh, rows, parts)


def test_rows_lie_over_all_data_axes():
    mesh = sharding.make_mesh(CUBE)
    x = jax.device_put(jnp.zeros((8, 3)), sharding.of_rows(mesh))
    assert x.addressable_shards[0].data.shape == (2, 3)
    y = jax.device_put(jnp.zeros((8, 3)), sharding.replicated(mesh))
    assert y.addressable_shards[0].data.shape == (8, 3)
