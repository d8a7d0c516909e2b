"""Tests of Muon: which parameters it updates, as which matrices, and the cost of the update."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.costs import flops
from oneflow_jax.errors import UserError
from oneflow_jax.training import optimizer as optimizer_lib
from tests import tiny
from tests.training import test_optimizer

RATE = 0.5


@functools.cache
def first_update(name, freeze=""):
    """Return the gradient and the first update of each parameter, without weight decay."""
    settings = test_optimizer.settings(
        freeze, name=name, learning_rate=RATE, warmup_steps=0, weight_decay=0.0, max_grad_norm=1e9
    )
    params = tiny.parameters(tiny.network())
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    pairs = zip(keys, leaves, strict=True)
    grads = jax.tree.unflatten(tree, [jax.random.normal(key, x.shape) for key, x in pairs])
    optimizer = optimizer_lib.optimizer(settings)
    updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
    return test_optimizer.flatten_params(grads), test_optimizer.flatten_params(updates)


def is_matrix_of_the_backbone(name):
    return name.startswith("backbone/") and name.endswith("/kernel")


def as_matrices(name, kernel):
    """Return a kernel as one matrix (inputs, outputs) per layer."""
    inputs = 2 if name.endswith("attention/out/kernel") else 1
    return kernel.reshape(kernel.shape[0], int(np.prod(kernel.shape[1 : 1 + inputs])), -1)


def test_muon_orthogonalizes_the_gradient_of_each_matrix():
    grads, updates = first_update("muon")
    names = [name for name in updates if is_matrix_of_the_backbone(name)]
    assert len(names) == 7
    for name in names:
        grad, update = as_matrices(name, grads[name]), as_matrices(name, updates[name])
        for of_layer, moved in zip(grad, update, strict=True):
            u, _, v = np.linalg.svd(of_layer.astype(np.float64), full_matrices=False)
            expected = -RATE * optimizer_lib.MUON_RMS * np.sqrt(max(of_layer.shape)) * u @ v
            sizes = np.linalg.svd(moved, compute_uv=False) / np.linalg.norm(expected, 2)
            # Five Newton-Schulz steps bring singular values near 1, except the smallest ones.
            assert np.mean((sizes > 0.6) & (sizes < 1.3)) > 0.9, name
            assert sizes.max() < 1.3, name
            cosine = np.sum(moved * expected) / np.linalg.norm(moved) / np.linalg.norm(expected)
            assert cosine > 0.97, name


def test_other_parameters_are_updated_as_by_adam():
    _, updates = first_update("muon")
    for name, update in updates.items():
        if not is_matrix_of_the_backbone(name):
            # The first update of Adam is the sign of the gradient, times the learning rate.
            ratios = np.abs(update) / RATE
            assert np.ptp(ratios) < 1e-3 * ratios.max(), name


def test_update_has_about_the_rms_of_adamw():
    _, updates = first_update("muon")
    for name, update in updates.items():
        if is_matrix_of_the_backbone(name):
            assert 0.1 < np.sqrt(np.mean(update**2)) / RATE < 0.3, name


def test_frozen_matrices_are_not_updated():
    _, updates = first_update("muon", freeze=test_optimizer.FROZEN)
    _, whole = first_update("muon")
    for name, update in updates.items():
        expected = 0.0 * whole[name] if name in test_optimizer.NAMES else whole[name]
        np.testing.assert_allclose(update, expected, atol=1e-5)


def test_parameters_without_a_backbone_are_refused():
    optimizer = optimizer_lib.optimizer(test_optimizer.settings("", name="muon"))
    with pytest.raises(UserError, match=r"optimizer.name='muon': .*Set optimizer.name to 'adamw'"):
        optimizer.init({"encoder": {"kernel": jnp.ones((3, 3))}})


def test_unknown_optimizer_is_refused():
    with pytest.raises(UserError, match=r"optimizer.name='sgd': unknown value. .*adamw, muon"):
        optimizer_lib.optimizer(test_optimizer.settings("", name="sgd"))


def test_flops_equal_the_count_of_xla():
    network = tiny.network()
    params = tiny.parameters(network)
    shape = flops.from_model(network, tiny.paradigm().channels)
    work = flops.muon(shape, optimizer_lib.NEWTON_SCHULZ_STEPS)

    def count(name):
        optimizer = optimizer_lib.optimizer(test_optimizer.settings("", name=name))
        opt_state = optimizer.init(params)
        lowered = jax.jit(optimizer.update).lower(params, opt_state, params)
        return lowered.cost_analysis()["flops"]

    # XLA also counts the norms and the momentum.
    assert 1 < (count("muon") - count("adamw")) / work < 1.05


def test_muon_on_a_mesh_gives_the_losses_of_one_device():
    optimizer = optimizer_lib.optimizer(test_optimizer.settings("", name="muon"))
    losses = []
    for sizes, count in (({"data": 2, "fsdp": 2, "tensor": 2}, 8), ({"data": 1}, 1)):
        system = tiny.System(optimizer=optimizer)
        with tiny.shard_system(system, tiny.packed_batch(), sizes, count) as placed:
            state = placed.state
            for _ in range(3):
                state, metrics = placed.step(state, placed.batch)
            losses.append(tiny.compute_metrics(metrics)["loss"])
            planned = dict(jax.tree.leaves_with_path(placed.shardings))
            for path, leaf in jax.tree.leaves_with_path(state):
                assert leaf.sharding.is_equivalent_to(planned[path], leaf.ndim), path
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_momentum_is_sharded_like_its_matrix():
    optimizer = optimizer_lib.optimizer(test_optimizer.settings("", name="muon"))
    sizes = {"data": 2, "fsdp": 2, "tensor": 2}
    with tiny.shard_system(tiny.System(optimizer=optimizer), tiny.packed_batch(), sizes) as placed:
        params = dict(jax.tree.leaves_with_path(placed.shardings.params))
        kernels = 0
        for path, where in jax.tree.leaves_with_path(placed.shardings.opt_state):
            for name, of_parameter in params.items():
                if path[-len(name) :] == name:
                    assert where.spec == of_parameter.spec
                    kernels += "backbone" in str(name) and "kernel" in str(name)
    # Muon keeps one momentum per matrix, where AdamW keeps two moments.
    assert kernels == 7
