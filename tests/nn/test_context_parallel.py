"""Tests of context parallelism: equal losses and gradients, with less memory per device."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.data import toy
from oneflow_jax.flows import tasks
from oneflow_jax.nn import blockwise_attention
from oneflow_jax.runtime import sharding
from oneflow_jax.training import step as step_lib
from oneflow_jax.training import update
from tests import tiny
from tests.paradigms import test_edit_flow
from tests.samplers import test_ar_guidance

LENGTH = 48
MIX = {"data": 2, "context": 2, "tensor": 2}


def paradigm_and_layout(name):
    """Return a paradigm with all its tasks and time couplings, and its layout."""
    if name == "oneflow":
        return tiny.paradigm(), tiny.make_layout(LENGTH)
    if name == "edit_flow":
        times = (0.25, 0.25, 0.25, 0.25)
        return test_edit_flow.paradigm(tiny.TASK_MIXTURE.probs, times), tiny.make_layout(LENGTH, 0)
    return test_ar_guidance.make_paradigm(name, tasks.TaskMixture((0.5, 0.5, *(0.0,) * 5), 0.5))


@functools.cache
def single_device_reference(name):
    """Return the loss-and-gradient function, its arguments, and its result on one device."""
    paradigm, layout = paradigm_and_layout(name)
    size = dataclasses.replace(tiny.TRANSFORMER_CONFIG, layers=1, heads=4, head_width=8)
    net = tiny.network(heads=paradigm.heads)
    net = dataclasses.replace(net, config=size, attention_pattern=paradigm.attention_pattern)
    rows = map(dataclasses.replace(layout, length=2 * LENGTH).row, toy.Toy(documents=40))
    rows = [row for row in rows if len(row["modality"]) <= LENGTH][:8]
    canvas = jax.tree.map(jnp.asarray, dataclasses.replace(layout, length=LENGTH).canvas(rows))
    if name == "chameleon":  # Image codes have no latents.
        canvas = canvas.replace(latents=jnp.zeros((*canvas.ids.shape, tiny.CODEC.channels)))
    u = jnp.broadcast_to(jnp.linspace(0.1, 0.8, 8)[:, None], canvas.ids.shape)

    def loss(params, canvas):
        keys = jax.random.split(jax.random.key(5), 8)
        each = step_lib.per_row_losses(params, keys, u, canvas, model=net, paradigm=paradigm)
        sums = update.sum_leading(each)
        return sum(weight * sums[term].total for term, weight in paradigm.weights)

    both = jax.value_and_grad(loss)
    params = tiny.parameters(net)
    return both, params, canvas, jax.jit(both)(params, canvas)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        *((name, MIX) for name in ("oneflow", "edit_flow", "transfusion", "chameleon")),
        ("oneflow", {"context": 8}),
        ("transfusion", {"fsdp": 2, "context": 4}),
    ],
    ids=str,
)
def test_context_parallel_losses_and_gradients_equal_one_device(name, sizes):
    both, params, canvas, (loss, gradients) = single_device_reference(name)
    mesh = sharding.make_mesh({"data": 1} | sizes)
    with sharding.mesh_context(mesh):
        where = (sharding.replicated_sharding(mesh), sharding.batch_sharding(mesh))
        # Define a new function, because for the same one JAX would reuse the trace without a mesh.
        on_mesh = jax.jit(lambda *args: both(*args), in_shardings=where)
        actual_loss, actual_gradients = on_mesh(params, jax.device_put(canvas, where[1]))
    np.testing.assert_allclose(actual_loss, loss, rtol=1e-5)
    greatest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradients))
    tiny.assert_trees_close(actual_gradients, gradients, atol=1e-5 * greatest)


def measure_temp_bytes(length, sizes, devices):
    """Return the bytes of a training step's temporary buffers on each device."""
    size = dataclasses.replace(
        tiny.TRANSFORMER_CONFIG, attention="blockwise", remat="full", layers=1
    )
    system = tiny.System(network=dataclasses.replace(tiny.network(), config=size))
    mesh = sharding.make_mesh({"data": 1} | sizes, jax.devices()[:devices])
    canvas = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((1, length, *x.shape[2:]), x.dtype), tiny.packed_batch()
    )
    with sharding.mesh_context(mesh):
        state = jax.eval_shape(
            lambda key, canvas: nn.unbox(system.initializer(canvas)(key)), jax.random.key(0), canvas
        )
        step = jax.jit(
            system.train_step(),
            in_shardings=(sharding.replicated_sharding(mesh), sharding.batch_sharding(mesh)),
        )
        analysis = step.lower(state, canvas).compile().memory_analysis()
    # The memory analysis is per device: each device has all parameters and both Adam moments, but
    # only its shard of the canvas.
    whole = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.params))
    assert 3 * whole < analysis.argument_size_in_bytes < 6 * whole + 2e5
    return analysis.temp_size_in_bytes


def test_eight_times_longer_row_on_eight_devices_needs_equal_memory_per_device(monkeypatch):
    monkeypatch.setattr(blockwise_attention, "BLOCK_K", 64)
    one = measure_temp_bytes(256, {}, 1)
    each = measure_temp_bytes(8 * 256, {"context": 8}, 8)
    assert each < 1.2 * one
    # Check that memory grows with the row's length on one device.
    assert measure_temp_bytes(512, {}, 1) > 1.5 * one
