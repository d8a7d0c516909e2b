import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from clu import metrics

from oneflow_jax.autoencoder_training import step
from oneflow_jax.codecs.autoencoder.pixels import from_uint8
from oneflow_jax.training import train_state
from tests.autoencoder_training import examples


@functools.cache
def image_batch():
    return examples.noise_images(8)


@functools.cache
def initial_state(kind):
    return examples.sgd_system(kind)[0].init_state()


def run_step(kind, num_microbatches=1, state=None):
    _, run = examples.sgd_system(kind, num_microbatches)
    return run(initial_state(kind) if state is None else state, image_batch())


def batch_split_invariant_losses(step_metrics):
    """Return the losses that do not depend on how the batch is split into microbatches."""
    return {
        name: value for name, value in examples.losses(step_metrics).items() if name != "entropy"
    }


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_step_does_not_depend_on_microbatches(kind):
    whole, logged = run_step(kind)
    cut, cut_logged = run_step(kind, num_microbatches=2)
    # With SGD at rate 1, the parameters move by the negative gradient.
    examples.assert_close(cut.params, whole.params, atol=1e-5, rtol=1e-4)
    examples.assert_close(
        batch_split_invariant_losses(cut_logged), batch_split_invariant_losses(logged), rtol=1e-4
    )
    assert float(logged["grad_norm"].compute()) > 0.01


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_step_does_not_depend_on_devices(kind):
    system, _ = examples.sgd_system(kind)
    one, logged = run_step(kind)
    eight, others = examples.step_on_mesh(system, initial_state(kind), image_batch())
    examples.assert_close(eight.params, one.params, atol=1e-5, rtol=1e-4)
    examples.assert_close(examples.losses(others), examples.losses(logged), rtol=1e-4)


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_step_is_deterministic_and_noise_differs_between_steps(kind):
    once, first = run_step(kind)
    again, same = run_step(kind)
    examples.assert_close(once.params, again.params, atol=0)
    assert examples.losses(first) == examples.losses(same)
    for changed_state in (
        initial_state(kind).replace(step=jnp.int32(1)),
        initial_state(kind).replace(key=jax.random.key(5)),
    ):
        _, logged = run_step(kind, state=changed_state)
        # Another step or key draws other latent noise and flips other images.
        assert float(logged["pixels"].compute()) != float(first["pixels"].compute())


def test_root_key_is_constant_and_step_is_incremented():
    state, logged = run_step("kl")
    assert state.step == 1
    np.testing.assert_array_equal(
        *(jax.random.key_data(s.key) for s in (state, initial_state("kl")))
    )
    assert logged["images"].compute() == 8


def test_the_loss_is_the_weighted_mean_of_its_terms():
    for kind in ("kl", "vq"):
        system, _ = examples.sgd_system(kind)
        values = examples.losses(run_step(kind)[1])
        expected = sum(w * values[name] for name, w in system.objective.weights)
        np.testing.assert_allclose(values["loss"], expected, rtol=1e-5)


def test_images_are_scaled_to_minus_one_to_one():
    images = from_uint8(jnp.asarray([0, 255, 51], jnp.uint8))
    np.testing.assert_allclose(images, [-1, 1, -0.6], atol=1e-6)


def test_half_of_the_images_are_flipped():
    picture = np.random.default_rng(3).normal(size=(2, 3, 3)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 1_000)
    images = np.asarray(jax.vmap(lambda k: step.random_flip(k, picture))(keys))
    same = np.all(images == picture, axis=(1, 2, 3))
    turned = np.all(images == picture[:, ::-1], axis=(1, 2, 3))
    assert np.all(same ^ turned)
    assert abs(turned.sum() - 500) < 4 * np.sqrt(250)


class RecordingObjective:
    """An objective without a network that records its images; `post_update` adds 1."""

    weights = (("pixels", 2.0),)

    def __init__(self):
        self.images = []

    def loss_sums(self, params, keys, pixels):
        jax.debug.callback(self.images.append, pixels)
        random_value = jax.random.uniform(keys[0])
        total = params["w"] * jnp.sum(pixels**2)
        average = metrics.Average(total=total, count=jnp.float32(len(pixels)))
        return {"pixels": average}, random_value

    def post_update(self, params, key, stats, remaining_fraction):
        del key
        assert stats.shape == (*remaining_fraction.shape, 1)
        return {"w": params["w"] + 1}


@functools.cache
def run_recorded_step():
    """Run one step of `RecordingObjective`.

    Returns the recorded images, the expected images, the state after the step and its metrics.
    """
    objective = RecordingObjective()
    system = examples.System(objective, optax.sgd(1.0))
    before = train_state.create(jax.random.key(0), {"w": jnp.float32(3)}, system.optimizer)
    after, logged = system.jit_step()(before, image_batch())
    jax.effects_barrier()
    return np.asarray(*objective.images), np.asarray(from_uint8(image_batch())), after, logged


def test_step_uses_each_image_or_its_flip():
    images, real, *_ = run_recorded_step()
    turned, same = (
        np.asarray([np.allclose(x, y, atol=1e-5) for x, y in zip(images, expected, strict=True)])
        for expected in (real[:, :, ::-1], real)
    )
    assert np.all(turned ^ same)
    assert 0 < turned.sum() < 8


def test_loss_is_divided_by_the_batch_and_post_update_runs_last():
    _, real, after, logged = run_recorded_step()
    gradient = 2 * np.sum(real**2) / 8
    np.testing.assert_allclose(logged["loss"].compute(), 3 * gradient, rtol=1e-5)
    np.testing.assert_allclose(after.params["w"], 3 - gradient + 1, rtol=1e-5)


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_loss_falls_on_plain_colors(kind):
    objective = examples.make_objective(kind, **({"kl_weight": 1e-4} if kind == "kl" else {}))
    system = examples.System(objective, optax.adam(1e-2))
    state = train_state.create(jax.random.key(0), initial_state(kind).params, system.optimizer)
    run, pictures = system.jit_step(), examples.single_color_images(8)
    history = []
    for _ in range(30):
        state, logged = run(state, pictures)
        history.append(float(logged["pixels"].compute()))
    assert np.mean(history[-5:]) < 0.5 * np.mean(history[:3]), history


def test_restarts_bring_codes_into_use():
    objective = examples.make_objective("vq", dead_code_restart_prob=0.5)

    @jax.jit
    def apply_post_update(params, key):
        """Apply `post_update` alone; return the new parameters and the number of used codes."""
        keys = jax.random.split(key, 9)
        _, stats = objective.loss_sums(params, keys[:8], from_uint8(image_batch()))
        stacked = jax.tree.map(lambda x: x[None], stats)
        return objective.post_update(params, keys[8], stacked, 1.0), jnp.sum(stats.counts > 0)

    params, used = initial_state("vq").params, []
    for number in range(5):
        params, count = apply_post_update(params, jax.random.key(number))
        used.append(int(count))
    assert used[-1] > used[0] + 3, used


def test_restarted_code_is_also_changed_in_the_ema():
    objective = examples.make_objective("vq", dead_code_restart_prob=1.0)
    system = examples.System(objective, optax.sgd(0.0))
    state = train_state.create(jax.random.key(0), initial_state("vq").params, system.optimizer)
    before = np.asarray(state.params["quantize"]["embedding"]["embedding"])
    state, _ = system.jit_step()(state, image_batch())
    after, average = (
        np.asarray(tree["quantize"]["embedding"]["embedding"]) for tree in (state.params, state.ema)
    )
    moved = np.any(before != after, axis=1)
    assert moved.any()
    np.testing.assert_array_equal(average[moved], after[moved])
