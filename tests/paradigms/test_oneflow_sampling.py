"""OneFlow's sampler, around networks that know the answer and one that knows nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax import canvas as canvases
from oneflow_jax.data.document import Document, Gap, Text
from oneflow_jax.samplers import ode
from oneflow_jax.samplers.base import SamplingPlan
from tests import tiny
from tests.paradigms.oracle import SEED, TABLE, oracle, row_keys


def sample(paradigm, apply, canvas, plan):
    return paradigm.sample(apply, TABLE, row_keys(SEED, canvas.ids.shape[0]), canvas, plan)


def blank_targets(canvas):
    """The canvas without what is to be made."""
    return canvas.replace(
        ids=jnp.where(canvas.free, 0, canvas.ids),
        latents=jnp.where(canvas.free[..., None], 0, canvas.latents),
    )


@pytest.mark.parametrize(
    ("objective", "image", "solver", "steps", "grid", "guidance"),
    [
        ("endpoint", "clean", "euler", 1, "uniform", 1.0),
        ("endpoint", "clean", "euler", 3, "cosine", 2.0),
        ("endpoint", "velocity", "heun", 3, "sine", 1.0),
        ("velocity", "clean", "midpoint", 4, "cosine", 1.0),
        ("velocity", "velocity", "tsit5", 2, "uniform", 3.0),
        ("literal", "velocity", "dopri5", 3, (0.0, 0.3, 0.8), 1.0),
        ("endpoint", "clean", "renoise", 3, "cosine", 1.0),
        ("velocity", "velocity", "renoise", 3, "uniform", 2.0),
    ],
)
def test_oracle_sampler_returns_the_data(objective, image, solver, steps, grid, guidance):
    paradigm = tiny.paradigm(objective, image)
    data = tiny.training_rows(tiny.captions(3))
    plan = SamplingPlan(ode.make_schedule(solver, steps, grid), guidance, record=True)
    out = sample(paradigm, oracle(paradigm, data), blank_targets(data), plan)
    np.testing.assert_array_equal(out.canvas.ids, data.ids)
    np.testing.assert_allclose(out.canvas.latents, data.latents, atol=1e-5)
    # All the way the belief is the data, and the state between noise and that.
    moments = out.moments
    line = jnp.array([*plan.schedule.times, 1.0])[:, None, None, None]
    straight = (1 - line) * moments.canvas.latents[:1] + line * data.latents[None]
    at = np.asarray(data.is_image)
    if solver == ode.RENOISE:
        # The data with noise of the time, other noise each time.
        noise = np.asarray(moments.canvas.latents - line * data.latents[None])[:-1, at]
        noise /= 1 - np.asarray(line)[:-1, 0]
        assert np.abs(noise.std(axis=(1, 2)) - 1).max() < 0.3
        assert np.abs(np.corrcoef(noise.reshape(len(line) - 1, -1)) - np.eye(3)).max() < 0.3
    else:
        np.testing.assert_allclose(moments.canvas.latents[:, at], straight[:, at], atol=1e-5)
    np.testing.assert_allclose(moments.guess[:, at], jnp.stack([data.latents[at]] * len(line)),
                               atol=1e-5)  # fmt: skip
    np.testing.assert_array_equal(moments.times, line[:, 0, 0, 0])
    np.testing.assert_array_equal(moments.canvas.ids, jnp.stack([data.ids] * len(line)))
    assert np.asarray(moments.certainty)[:, np.asarray(data.is_text)].min() > 0.5
    start = moments.canvas.latents[0][at].reshape(3, -1)
    assert abs(start.std() - 1) < 0.3


def prompt():
    picture = tiny.captions(1)[0].pictures()[0]
    return tiny.prompts(
        [
            Document((Text("a picture of red"), Gap("image"), Gap("text"))),
            Document((Gap("text", 3), Text("blue"), tiny.document.Image(picture), Gap("image"))),
            Document((Gap("text"), Gap("image"))),
        ]
    )


@functools.cache
def real_sampler(objective="endpoint", guidance=1.0, steps_=3, solver="euler"):
    """A compiled sampler around a network that knows nothing."""
    paradigm = tiny.paradigm(objective)
    net = tiny.network(paradigm.heads)
    params = tiny.parameters(net)
    plan = SamplingPlan(ode.make_schedule(solver, steps_), guidance)

    def run(keys, canvas):
        apply = functools.partial(net.apply, {"params": params})
        return paradigm.sample(apply, TABLE, keys, canvas, plan).canvas

    return jax.jit(run)


@pytest.mark.parametrize(("solver", "guidance"), [("euler", 1.0), ("euler", 3.0), ("renoise", 1.0)])
def test_given_slots_never_change_nor_does_padding(solver, guidance):
    canvas = prompt()
    # A stray value in a slot that does not exist must come back untouched, too.
    canvas = canvas.replace(ids=jnp.where(canvas.kind == 0, 5, canvas.ids))
    out = real_sampler(guidance=guidance, solver=solver)(row_keys(SEED, 3), canvas)
    kept = ~np.asarray(canvas.free)
    assert kept.sum() > 20
    np.testing.assert_array_equal(out.ids[kept], canvas.ids[kept])
    np.testing.assert_array_equal(
        np.asarray(out.latents)[kept].view(np.int32),
        np.asarray(canvas.latents)[kept].view(np.int32),
    )
    for name in ("kind", "segment", "span", "position", "fixed"):
        np.testing.assert_array_equal(getattr(out, name), getattr(canvas, name))
    assert np.all(np.isfinite(out.latents))
    assert np.any(out.ids[~kept] != canvas.ids[~kept])
    # Words hold no latent, pictures no token.
    np.testing.assert_array_equal(out.latents[np.asarray(canvas.is_text)], 0)
    np.testing.assert_array_equal(out.ids[np.asarray(canvas.is_image)], 0)


def test_samples_depend_on_the_seed_alone():
    run, canvas = real_sampler(), prompt()
    once, again = (run(row_keys(SEED, 3), canvas) for _ in range(2))
    other = run(row_keys(99, 3), canvas)
    tiny.assert_trees_close(once, again, atol=0)
    image = np.asarray(canvas.free & canvas.is_image)
    text = np.asarray(canvas.free & canvas.is_text)
    assert np.abs(np.asarray(other.latents - once.latents))[image].max() > 0.01
    assert np.any(np.asarray(other.ids != once.ids)[text])


@pytest.mark.parametrize("solver", ["euler", "renoise"])
def test_a_sample_does_not_depend_on_its_neighbors(solver):
    run, canvas = real_sampler(solver=solver), prompt()
    whole = run(row_keys(SEED, 3), canvas)
    swapped = jax.tree.map(lambda x: x.at[1:].set(x[jnp.array([2, 1])]), canvas)
    first = run(row_keys(SEED, 3), swapped)
    alone = run(row_keys(SEED, 1), jax.tree.map(lambda x: x[:1], canvas))
    for other in (first, alone):
        np.testing.assert_array_equal(other.ids[0], whole.ids[0])
        np.testing.assert_allclose(other.latents[0], whole.latents[0], atol=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize(("solver", "steps_"), [("euler", 1), ("heun", 3), ("renoise", 3)])
def test_evaluations_counts_the_rows_that_the_network_sees(solver, steps_, guidance):
    paradigm = tiny.paradigm()
    data = tiny.training_rows(tiny.captions(2))
    calls = []

    def counted(view):
        copies = view.clock.shape[0] // 2
        jax.debug.callback(lambda: calls.append(copies))
        return oracle(paradigm, data)(view)

    plan = SamplingPlan(ode.make_schedule(solver, steps_), guidance)
    jax.block_until_ready(sample(paradigm, counted, data, plan))
    jax.effects_barrier()
    assert sum(calls) == paradigm.evaluations(plan)


def test_without_words_means_noise_at_time_zero_as_in_training():
    """The unconditional view has no words, given or not, but BOS; pictures as they are."""
    canvas, seen = prompt(), []

    def spy(view):
        seen.append(view)
        return oracle(tiny.paradigm(), jax.tree.map(lambda x: x, canvas))(view)

    # In one step no solver is in between.
    sample(tiny.paradigm(), spy, canvas, SamplingPlan(ode.make_schedule("euler", 1), 2.0))
    (both,) = seen
    conditional, without = (jax.tree.map(lambda x, i=i: x[i::2], both) for i in (0, 1))
    words = np.asarray(canvas.is_text & (canvas.position[..., 0] > 0))
    np.testing.assert_array_equal(without.clock[words], 0)
    np.testing.assert_array_equal(without.clock[~words], conditional.clock[~words])
    np.testing.assert_array_equal(without.latents[~words], conditional.latents[~words])
    np.testing.assert_array_equal(without.embeds[~words], conditional.embeds[~words])
    given = words & np.asarray(canvas.fixed)
    rows = tiny.paradigm().objective.table(TABLE).rows[canvas.ids]
    np.testing.assert_array_equal(conditional.embeds[given], rows[given])
    np.testing.assert_array_equal(conditional.clock[given], 1)
    assert np.abs(np.asarray(without.embeds - rows))[given].min(-1).max() > 0
    noise = np.asarray(without.embeds)[words] - np.asarray(TABLE.mask)
    assert abs(noise.std() - 1) < 0.1


def test_every_row_starts_from_noise_of_its_own():
    paradigm, seen = tiny.paradigm(), []
    data = tiny.training_rows(tiny.captions(1) * 2)

    def spy(view):
        seen.append(view)
        return oracle(paradigm, data)(view)

    sample(paradigm, spy, data, SamplingPlan(ode.make_schedule("euler", 1)))
    (view,) = seen
    for kind, content in ((data.is_text, view.embeds), (data.is_image, view.latents)):
        one, other = (content[b][np.asarray((data.free & kind)[b])] for b in (0, 1))
        assert jnp.abs(one - other).min(axis=-1).max() > 0.1


def test_a_late_start_keeps_part_of_what_is_there():
    paradigm = tiny.paradigm()
    data, seen = tiny.training_rows(tiny.captions(2)), []

    def spy(view):
        seen.append(view)
        return oracle(paradigm, data)(view)

    sample(paradigm, spy, data, SamplingPlan(ode.make_schedule("euler", 1, start=0.9)))
    (view,) = seen
    image = np.asarray(data.is_image)
    np.testing.assert_allclose(view.clock[np.asarray(data.free)], 0.9)
    noise = np.asarray(view.latents - 0.9 * data.latents)[image]
    assert abs(noise.std() - 0.1) < 0.03
    assert isinstance(view, canvases.NoisyCanvas)
