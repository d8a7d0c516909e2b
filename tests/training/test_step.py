import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from clu.metrics import Average

from oneflow_jax.data.document import Document, Text
from oneflow_jax.flows import time_samplers
from oneflow_jax.training import optimizer as optimizer_lib
from oneflow_jax.training import step as step_lib
from oneflow_jax.training import update
from tests import tiny

SGD = tiny.System(optimizer=optax.sgd(1.0))


@functools.cache
def jit_step(num_microbatches=1):
    return dataclasses.replace(SGD, num_microbatches=num_microbatches).jit_train_step()


@functools.cache
def start():
    return SGD.init_state(tiny.packed_batch()).replace(params=tiny.parameters(SGD.network))


def run(system, batch, count):
    state, step, history = system.init_state(batch), system.jit_train_step(), []
    for _ in range(count):
        state, metrics = step(state, batch)
        history.append(tiny.compute_metrics(metrics))
    return state, history


@pytest.mark.parametrize("parts", [2, 4])
def test_step_does_not_depend_on_microbatches(parts):
    """Check microbatches with different numbers of text, image and scored slots."""
    whole, metrics = jit_step()(start(), tiny.packed_batch())
    cut, cut_metrics = jit_step(parts)(start(), tiny.packed_batch())
    # With SGD at rate 1, the parameters move by the negative gradient.
    tiny.assert_trees_close(cut.params, whole.params, atol=1e-5, rtol=1e-5)
    tiny.assert_trees_close(
        tiny.compute_metrics(cut_metrics), tiny.compute_metrics(metrics), rtol=1e-5
    )
    assert float(metrics["grad_norm"].compute()) > 0.1


def test_microbatches_are_strided():
    parts = update.split_microbatches({"x": jnp.arange(8)}, 2)["x"]
    np.testing.assert_array_equal(parts, [[0, 2, 4, 6], [1, 3, 5, 7]])


def test_step_is_deterministic_and_noise_differs_between_steps():
    once, first = jit_step()(start(), tiny.packed_batch())
    again, same = jit_step()(start(), tiny.packed_batch())
    tiny.assert_trees_close(once.params, again.params, atol=0)
    assert tiny.compute_metrics(first) == tiny.compute_metrics(same)
    later = start().replace(step=jnp.int32(1))
    _, later_metrics = jit_step()(later, tiny.packed_batch())
    seeded = start().replace(key=jax.random.key(5))
    _, reseeded = jit_step()(seeded, tiny.packed_batch())
    for metrics in (later_metrics, reseeded):
        for term in ("text", "image"):
            assert float(metrics[term].compute()) != float(first[term].compute())


def test_root_key_is_constant_and_step_is_incremented():
    state, _ = jit_step()(start(), tiny.packed_batch())
    assert state.step == 1
    np.testing.assert_array_equal(jax.random.key_data(state.key), jax.random.key_data(start().key))


def test_row_keys_are_distinct_and_independent_of_the_batch_size():
    few, many = (update.per_row_keys(jax.random.key(0), n) for n in (3, 8))
    data = jax.random.key_data(many)
    np.testing.assert_array_equal(jax.random.key_data(few), data[:3])
    assert len({tuple(row) for row in data.tolist()}) == 8


class Spy:
    """A paradigm whose loss `text` is a row's mean time, and `image` a statistic of its noise."""

    weights = (("text", 0.0), ("image", 0.0))

    def __init__(self, inner):
        self.counts, self.corrupt, self.inner, self.seen = inner.counts, self._corrupt, inner, {}

    def _corrupt(self, key, u, canvas, table):
        view, _ = self.inner.corrupt(key, u, canvas, table)
        return view, (u, view)

    def loss(self, outputs, targets):
        u, view = targets
        free = (view.modality > 0) & (view.position[..., 0] > 0)
        one = jnp.float32(1)
        average = Average
        return {
            "text": average(total=jnp.sum(jnp.where(free, u, 0)) / jnp.sum(free), count=one),
            "image": average(total=jnp.mean(view.embeds) ** 2, count=one),
        }


def test_rows_have_stratified_times_and_independent_noise():
    """Check equal documents: times are stratified over rows, and noise is independent."""
    rows = 8
    same = tiny.training_rows(tiny.captions(1) * rows)
    system = dataclasses.replace(SGD, paradigm=Spy(tiny.paradigm()))
    _, metrics = system.jit_train_step()(system.init_state(same), same)
    mean = float(metrics["text"].compute())
    # One u for all rows would have a std of 0.29.
    assert abs(mean - 0.5) <= 0.5 / rows
    corrupt = jax.vmap(functools.partial(tiny.paradigm().corrupt, table=table()))
    u = jnp.full(same.ids.shape, 0.1)
    view, _ = corrupt(update.per_row_keys(jax.random.key(0), rows), u, same)
    noisy = np.asarray(view.embeds)[np.asarray(view.time == np.float32(0.1))]
    assert len(np.unique(noisy[:, 0])) == len(noisy)


def table():
    return SGD.network.apply({"params": start().params}, method="embedding_table")


def test_step_is_traced_once_and_donates_its_state():
    traces = []
    batch = jax.device_put(tiny.packed_batch(), jax.devices()[0])
    system = tiny.System()
    state = jax.device_put(system.init_state(batch), jax.devices()[0])

    def counted_step(state, canvas):
        traces.append(1)
        return system.train_step()(state, canvas)

    step = jax.jit(counted_step, donate_argnums=0)
    first = state
    for _ in range(3):
        state, _ = step(state, batch)
    assert len(traces) == 1
    # The donated buffers are deleted.
    assert all(x.is_deleted() for x in jax.tree.leaves((first.params, first.opt_state, first.ema)))


def test_parameter_ema_matches_its_formula():
    one, _ = jit_step()(start(), tiny.packed_batch())
    # At step 0 the EMA keeps min(decay, (1 + step) / (10 + step)) = 0.1 of the old value.
    expected = jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, start().ema, one.params)
    tiny.assert_trees_close(one.ema, expected, atol=1e-5)
    late = start().replace(step=jnp.int32(100_000))
    one, _ = jit_step()(late, tiny.packed_batch())
    expected = jax.tree.map(lambda old, new: 0.99 * old + 0.01 * new, late.ema, one.params)
    tiny.assert_trees_close(one.ema, expected, atol=1e-5)


def test_loss_falls_on_toy_data():
    _, history = run(tiny.System(), tiny.packed_batch(), 60)
    early, late = (
        np.mean([[losses["text"], losses["image"]] for losses in part], axis=0)
        for part in (history[:5], history[-10:])
    )
    assert np.all(late < 0.6 * early), (early, late)


def test_metrics_are_means_over_scored_slots():
    state, batch = start(), tiny.packed_batch()
    one, logged = jit_step()(state, batch)
    rows = batch.ids.shape[0]
    key_clock, key_rows = jax.random.split(jax.random.fold_in(state.key, 0))
    u = time_samplers.spread_over_documents(
        time_samplers.sample_stratified(key_clock, rows), batch.segment
    )
    corrupt = jax.vmap(functools.partial(SGD.paradigm.corrupt, table=table()))
    view, targets = corrupt(update.per_row_keys(key_rows, rows), u, batch)
    assert logged["text"].count == targets.text_scored.sum()
    assert logged["image"].count == targets.image_scored.sum()
    outputs = SGD.network.apply({"params": state.params}, view)
    nats = optax.softmax_cross_entropy_with_integer_labels(outputs["text_logits"], batch.ids)
    text = float(jnp.sum(nats * targets.text_scored))
    values = tiny.compute_metrics(logged)
    np.testing.assert_allclose(values["text"], text / targets.text_scored.sum(), rtol=1e-4)
    # The minimized loss divides by the number of slots to generate, not of scored slots.
    free = {"text": batch.to_generate & batch.is_text, "image": batch.to_generate & batch.is_image}
    by_count = {name: float(logged[name].total / free[name].sum()) for name in free}
    np.testing.assert_allclose(values["loss"], by_count["text"] + 2 * by_count["image"], rtol=1e-4)
    np.testing.assert_allclose(values["param_norm"], optax.global_norm(one.params), rtol=1e-4)
    np.testing.assert_allclose(values["update_norm"], values["grad_norm"], rtol=1e-5)
    assert values["documents"] == batch.segment.max(1).sum()


def test_a_batch_without_images_trains():
    words = tiny.training_rows([Document((Text("a picture of red"),))] * 4, length=96)
    batch = jax.tree.map(lambda x: jnp.concatenate([x, x]), words)
    state, metrics = jit_step()(start(), batch)
    values = tiny.compute_metrics({name: metrics[name] for name in ("text", "loss", "grad_norm")})
    assert metrics["image"].count == 0
    assert metrics["image"].total == 0
    assert np.all(np.isfinite(list(values.values())))
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(state.params))


def test_padding_rows_change_nothing():
    batch = tiny.packed_batch()
    half = jax.tree.map(lambda x: x[:4], batch)
    padded = jax.tree.map(lambda x: x.at[4:].set(jnp.zeros_like(x[4:])), batch)
    u = jnp.full(batch.ids.shape, 0.4)

    def sums(canvas, rows):
        keys = update.per_row_keys(jax.random.key(1), rows)
        each = step_lib.per_row_losses(
            start().params, keys, u[:rows], canvas, model=SGD.network, paradigm=SGD.paradigm
        )
        return update.sum_leading(each)

    tiny.assert_trees_close(jax.jit(sums, static_argnums=1)(padded, 8),
                            jax.jit(sums, static_argnums=1)(half, 4), rtol=1e-5)  # fmt: skip


def test_evaluation_uses_one_time_for_all_documents():
    spy = Spy(tiny.paradigm())
    run_ = functools.partial(
        step_lib.eval_step,
        start().params,
        canvas=tiny.packed_batch(),
        model=SGD.network,
        paradigm=spy,
    )
    rows = run_(key=jax.random.key(0), u=jnp.float32(0.25))
    np.testing.assert_allclose(update.sum_leading(rows)["text"].compute(), 0.25, rtol=1e-5)
    again = run_(key=jax.random.key(0), u=jnp.float32(0.25))
    np.testing.assert_array_equal(rows["image"].total, again["image"].total)


def test_initialization_does_not_use_a_step_key():
    """Check that initialization does not use a training step's key.

    Otherwise the parameters would be correlated with that step's noise.
    """
    batch = tiny.packed_batch()
    params = SGD.init_state(batch).params
    view = tiny.noisy_canvas(batch)
    for step in range(3):
        key = jax.random.fold_in(jax.random.key(0), step)
        step_params = nn.unbox(SGD.network.init(key, view)["params"])
        assert jnp.any(step_params["rows"] != params["rows"])


def test_weight_decay_applies_to_matrices_only():
    settings = dataclasses.replace(tiny.OPTIMIZER_CONFIG, weight_decay=0.5, warmup_steps=0)
    optimizer = optimizer_lib.optimizer(settings)
    params = start().params
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    moved = {
        jax.tree_util.keystr(path): bool(jnp.any(x != 0))
        for path, x in jax.tree_util.tree_leaves_with_path(updates)
    }
    assert {name: "kernel" in name for name in moved} == moved
