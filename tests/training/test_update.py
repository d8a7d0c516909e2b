"""Tests of the parameter update, on a linear model whose gradients are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from clu import metrics

from oneflow_jax.training import train_state, update
from tests import tiny

ROWS = 8
X = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
START = {"w": jnp.asarray([1.0, -2.0, 0.5])}


def loss(params, part):
    """Return half the sum of squared predictions, divided by the row count of the whole batch."""
    rows, keys = part
    predictions = rows @ params["w"]
    total = jnp.sum(predictions**2) / 2
    sums = {"half": metrics.Average(total=total, count=jnp.float32(len(rows)))}
    return total / ROWS, (sums, {"made": predictions, "drawn": jax.vmap(jax.random.uniform)(keys)})


def apply_update(parts, optimizer=None, step=0):
    optimizer = optimizer or optax.sgd(0.1)
    state = train_state.create(jax.random.key(0), START, optimizer).replace(step=jnp.int32(step))

    def run(state):
        rows = (X, update.per_row_keys(jax.random.fold_in(state.key, state.step), ROWS))
        return update.accumulate_and_apply(
            state, loss, rows, optimizer=optimizer, ema_decay=0.9, num_microbatches=parts
        )

    return jax.jit(run)(state)


def gradient():
    return X.T @ (X @ np.asarray(START["w"])) / ROWS


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_gradients_add_up_to_those_of_the_batch(parts):
    after, logged, aux = apply_update(parts)
    expected = START["w"] - 0.1 * gradient()
    np.testing.assert_allclose(after.params["w"], expected, rtol=1e-5)
    assert after.step == 1
    predictions = X @ np.asarray(START["w"])
    values = tiny.compute_metrics(logged)
    np.testing.assert_allclose(values["loss"], np.sum(predictions**2) / 2 / ROWS, rtol=1e-5)
    np.testing.assert_allclose(values["half"], values["loss"], rtol=1e-5)
    assert logged["half"].count == ROWS
    np.testing.assert_allclose(values["grad_norm"], np.linalg.norm(gradient()), rtol=1e-5)
    np.testing.assert_allclose(values["update_norm"], 0.1 * values["grad_norm"], rtol=1e-5)
    np.testing.assert_allclose(values["param_norm"], np.linalg.norm(expected), rtol=1e-5)
    # The auxiliary output is stacked over microbatches; row n is in microbatch n % parts.
    assert aux["made"].shape == (parts, ROWS // parts)
    np.testing.assert_allclose(np.asarray(aux["made"]).T.reshape(-1), predictions, rtol=1e-4)


def test_row_keys_do_not_depend_on_microbatches():
    values = [np.asarray(apply_update(parts)[2]["drawn"]).T.reshape(-1) for parts in (1, 2, 4)]
    np.testing.assert_array_equal(values[0], values[1])
    np.testing.assert_array_equal(values[0], values[2])
    assert len(set(values[0].tolist())) == ROWS


@pytest.mark.parametrize(("step", "weight"), [(0, 0.1), (1_000, 0.9)])
def test_ema_uses_the_updated_parameters(step, weight):
    after, _, _ = apply_update(1, step=step)
    expected = weight * START["w"] + (1 - weight) * after.params["w"]
    np.testing.assert_allclose(after.ema["w"], expected, rtol=1e-5)


def test_optimizer_state_is_carried_over():
    after, _, _ = apply_update(2, optax.trace(0.9))
    np.testing.assert_allclose(after.opt_state.trace["w"], gradient(), rtol=1e-5)


def test_root_key_is_constant():
    after, _, _ = apply_update(1)
    expected = jax.random.key_data(jax.random.key(0))
    np.testing.assert_array_equal(jax.random.key_data(after.key), expected)
